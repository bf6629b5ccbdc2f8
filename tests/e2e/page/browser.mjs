// What the page's tests share: a real browser, the driver that plays Discord, and waiting.

import assert from 'node:assert/strict';
import { createServer } from 'node:net';
import { createInterface } from 'node:readline';
import { after, before, test } from 'node:test';

import { chromium } from 'playwright-core';

export const PAGE = process.env.PAGE ?? 'http://127.0.0.1:3001/';
export const APP = process.env.APP ?? 'mybot';
const PATIENCE = 20_000;
const POLL = 50;

const said = createInterface({ input: process.stdin })[Symbol.asyncIterator]();

// Lets the driver, which started this script, do something: it gets a line, and says `done` in one.
export async function ask(what, ...told) {
  process.stdout.write(`do: ${[what, ...told.map((it) => JSON.stringify(it))].join(' ')}\n`);
  const { value, done } = await said.next();
  if (done || value !== 'done') throw new Error(`the driver could not do ${what}: ${value}`);
}

const start = (...args) =>
  chromium.launch({
    executablePath: process.env.CHROMIUM || '/usr/bin/chromium',
    args: ['--no-sandbox', ...args],
  });

let browser;
before(async () => {
  browser = await start();
});
after(async () => {
  await browser.close();
  // Nothing more will be asked.
  process.stdin.destroy();
});

// Runs `body` on a page of its own, which must have nothing to complain about in the end.
export function onPage(name, options, body) {
  test(name, async () => {
    const opened = await open(PAGE + (options.hash ?? ''), options);
    try {
      await body(opened.page, opened);
      if (!options.losesTheDaemon) assert.deepEqual(opened.wrong, []);
    } catch (error) {
      if (process.env.SHOTS)
        await opened.page.screenshot({
          path: `${process.env.SHOTS}/${name.replaceAll(' ', '-')}.png`,
          fullPage: true,
        });
      throw error;
    } finally {
      await opened.close();
    }
  });
}

export const play = (name, times = 1, kind = 'command') => ask('play', { kind, name, times });
export const rows = (page) => page.locator('#rows > details');
export const rowOf = (page, name) => rows(page).filter({ hasText: name }).first();
export const lamp = (page, part) => page.locator(`.lamp[data-part=${part}]`);
export const text = (locator) => locator.evaluate((node) => node.textContent);
export const number = async (locator) => Number((await text(locator)).replaceAll(',', ''));

export const fitsInWidth = (page) =>
  page.evaluate(() => document.documentElement.scrollWidth <= window.innerWidth);

// How often that became of the application's interactions, as the page tells it.
export const total = (page, word) =>
  page.locator(`#apps [data-app=${JSON.stringify(APP)}] .totals`).evaluate((node, word) => {
    const item = [...node.children].find((child) => child.lastChild.data.trim() === word);
    return item ? Number(item.firstChild.textContent.replaceAll(',', '')) : 0;
  }, word);

// Waits until `condition` gives something true, and gives it back.
export async function until(what, condition, patience = PATIENCE) {
  const begin = performance.now();
  for (;;) {
    const value = await condition();
    if (value) return value;
    if (performance.now() - begin > patience) throw new Error(`not within ${patience} ms: ${what}`);
    await new Promise((resolve) => {
      setTimeout(resolve, POLL);
    });
  }
}

// Opens the page in a window of its own, live, and notes whatever goes wrong in it.
async function open(url, options) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options });
  const page = await context.newPage();
  const wrong = [];
  page.on('console', (message) => message.type() === 'error' && wrong.push(message.text()));
  page.on('pageerror', (error) => wrong.push(String(error)));
  page.on('dialog', async (dialog) => {
    wrong.push(`a dialog: ${dialog.message()}`);
    await dialog.dismiss();
  });
  page.on(
    'request',
    (request) =>
      new URL(request.url()).origin !== new URL(url).origin &&
      !request.url().startsWith('data:') &&
      wrong.push(`asked ${request.url()}`),
  );
  await page.exposeFunction('noteViolation', (what) => wrong.push(`against the CSP: ${what}`));
  await page.addInitScript(() => {
    document.addEventListener('securitypolicyviolation', (event) =>
      window.noteViolation(`${event.violatedDirective} ${event.blockedURI}`),
    );
  });
  const response = await page.goto(url);
  await untilLive(page);
  return { page, wrong, response, close: () => context.close() };
}

export const untilLive = (page) =>
  until('the page is live', () =>
    page.evaluate(
      () => document.body.dataset.feed === 'live' && document.querySelectorAll('.lamp').length === 4,
    ),
  );

// Opens the page in a browser of its own that hides a tab behind another: pages are made to think that they are seen
// wherever Playwright has the whole say.
export async function openUnemulated(url) {
  const port = await freePort();
  const own = await start(`--remote-debugging-port=${port}`);
  try {
    const joined = await chromium.connectOverCDP(`http://127.0.0.1:${port}`, { noDefaults: true });
    const [context] = joined.contexts();
    const page = await context.newPage();
    await page.goto(url);
    await untilLive(page);
    const openInFront = async () => {
      const other = await context.newPage();
      await other.bringToFront();
      return other;
    };
    const close = async () => {
      await joined.close();
      await own.close();
    };
    return { page, openInFront, close };
  } catch (error) {
    await own.close();
    throw error;
  }
}

const freePort = () =>
  new Promise((resolve, reject) => {
    const server = createServer().on('error', reject);
    server.listen(0, '127.0.0.1', () => {
      const { port } = server.address();
      server.close(() => resolve(port));
    });
  });

// The lowest contrast of any text that can be seen, as WCAG counts it, and where.
export function lowestContrast(page) {
  return page.evaluate(() => {
    const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
    const rgba = (color) => {
      canvas.clearRect(0, 0, 1, 1);
      canvas.fillStyle = color;
      canvas.fillRect(0, 0, 1, 1);
      return [...canvas.getImageData(0, 0, 1, 1).data];
    };
    const light = (color) => {
      const [r, g, b] = color
        .map((it) => it / 255)
        .map((it) => (it <= 0.04045 ? it / 12.92 : ((it + 0.055) / 1.055) ** 2.4));
      return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const behind = (node) => {
      for (let at = node; at; at = at.parentElement) {
        const color = rgba(getComputedStyle(at).backgroundColor);
        if (color[3] === 255) return color;
      }
      return [255, 255, 255, 255];
    };
    let lowest = { ratio: 21, where: '' };
    for (const node of document.querySelectorAll('body *')) {
      const hasText = [...node.childNodes].some(
        (child) => child.nodeType === Node.TEXT_NODE && child.data.trim(),
      );
      if (
        !hasText ||
        /^(SCRIPT|STYLE|NOSCRIPT|OPTION)$/.test(node.tagName) ||
        !node.checkVisibility() ||
        node.closest('.away, .skip')
      )
        continue;
      const style = getComputedStyle(node);
      const [a, b] = [rgba(node instanceof SVGElement ? style.fill : style.color), behind(node)]
        .map(light)
        .sort((x, y) => y - x);
      const ratio = (a + 0.05) / (b + 0.05);
      if (ratio < lowest.ratio)
        lowest = {
          ratio,
          where: `${node.tagName} ${node.getAttribute('class') ?? ''} "${node.textContent.slice(0, 40)}"`,
        };
    }
    return lowest;
  });
}
