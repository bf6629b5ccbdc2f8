// A bot as its author would write it: express, and the signature checked by the official library.
// Every answer holds the interaction's id and what the user gave, so that a mix-up of two answers shows.

import { InteractionResponseType, InteractionType, verifyKeyMiddleware } from 'discord-interactions';
import express from 'express';
import { Webhook } from 'standardwebhooks';

const { PORT, PUBLIC_KEY, SHARDLESS_SECRET } = process.env;
const bot = express();

const message = (type, content) => ({ type, data: { content } });

function answer({ id, type, data }) {
  switch (type) {
    case InteractionType.APPLICATION_COMMAND:
      return message(InteractionResponseType.CHANNEL_MESSAGE_WITH_SOURCE, `${id}: ${data.options[0].value}`);
    case InteractionType.APPLICATION_COMMAND_AUTOCOMPLETE: {
      const typed = data.options.find((option) => option.focused).value;
      const choices = [{ name: typed, value: id }];
      return { type: InteractionResponseType.APPLICATION_COMMAND_AUTOCOMPLETE_RESULT, data: { choices } };
    }
    case InteractionType.MESSAGE_COMPONENT:
      return message(InteractionResponseType.UPDATE_MESSAGE, `${id}: ${data.custom_id}`);
    case InteractionType.MODAL_SUBMIT:
      return message(
        InteractionResponseType.CHANNEL_MESSAGE_WITH_SOURCE,
        `${id}: ${data.components[0].components[0].value}`,
      );
    default:
      throw new Error(`unknown interaction type ${type}`);
  }
}

if (SHARDLESS_SECRET) {
  const shared = new Webhook(SHARDLESS_SECRET);
  bot.use(express.raw({ type: 'application/json' }), (request, response, next) => {
    try {
      shared.verify(request.body, request.headers);
    } catch (error) {
      response.status(403).send(error.message);
      return;
    }
    next();
  });
}

bot.post('/interactions', verifyKeyMiddleware(PUBLIC_KEY), (request, response) => {
  response.json(answer(request.body));
});

bot.listen(Number(PORT), '127.0.0.1');
