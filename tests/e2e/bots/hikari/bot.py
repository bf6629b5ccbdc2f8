"""A bot as its author would write it: hikari's REST bot, which checks signatures by itself.

Its answers are those of the other bots; what a user chose to have as a file comes with one.
"""

import os

import hikari

# With the key at hand it asks Discord for nothing at its start; the token is only for calls that it does not make.
bot = hikari.RESTBot("none", hikari.TokenType.BOT, public_key=os.environ["PUBLIC_KEY"], banner=None)


async def command(interaction: hikari.CommandInteraction):
    text = f"{interaction.id}: {interaction.options[0].value}"
    answer = interaction.build_response().set_content(text)
    if interaction.command_name == "export":
        answer.add_attachment(hikari.Bytes(text.encode(), "export.txt"))
    return answer


async def component(interaction: hikari.ComponentInteraction):
    answer = interaction.build_response(hikari.ResponseType.MESSAGE_UPDATE)
    return answer.set_content(f"{interaction.id}: {interaction.custom_id}")


bot.set_listener(hikari.CommandInteraction, command)
bot.set_listener(hikari.ComponentInteraction, component)

if __name__ == "__main__":
    bot.run(host="127.0.0.1", port=int(os.environ["PORT"]), check_for_updates=False)
