"""A bot as its author would write it: Flask, and the signature checked by the official library.

Every answer holds the interaction's id and what the user gave, so that a mix-up of two answers shows.
"""

import os

from discord_interactions import InteractionResponseType, InteractionType, verify_key_decorator
from flask import Flask, abort, jsonify, request
from standardwebhooks import Webhook, WebhookVerificationError

bot = Flask(__name__)
secret = os.environ.get("SHARDLESS_SECRET")


def message(kind, content):
    return {"type": kind, "data": {"content": content}}


def answer(interaction):
    identity, kind, data = interaction["id"], interaction["type"], interaction["data"]
    if kind == InteractionType.APPLICATION_COMMAND:
        text = f"{identity}: {data['options'][0]['value']}"
        return message(InteractionResponseType.CHANNEL_MESSAGE_WITH_SOURCE, text)
    if kind == InteractionType.APPLICATION_COMMAND_AUTOCOMPLETE:
        typed = next(option["value"] for option in data["options"] if option.get("focused"))
        choices = [{"name": typed, "value": identity}]
        return {
            "type": InteractionResponseType.APPLICATION_COMMAND_AUTOCOMPLETE_RESULT,
            "data": {"choices": choices},
        }
    if kind == InteractionType.MESSAGE_COMPONENT:
        return message(InteractionResponseType.UPDATE_MESSAGE, f"{identity}: {data['custom_id']}")
    if kind == InteractionType.MODAL_SUBMIT:
        text = f"{identity}: {data['components'][0]['components'][0]['value']}"
        return message(InteractionResponseType.CHANNEL_MESSAGE_WITH_SOURCE, text)
    raise ValueError(f"unknown interaction type {kind}")


@bot.before_request
def require_shardless():
    if secret:
        try:
            Webhook(secret).verify(request.get_data(), request.headers)
        except WebhookVerificationError as error:
            abort(403, str(error))


@bot.post("/interactions")
@verify_key_decorator(os.environ["PUBLIC_KEY"])
def interactions():
    return jsonify(answer(request.json))


if __name__ == "__main__":
    bot.run(host="127.0.0.1", port=int(os.environ["PORT"]))
