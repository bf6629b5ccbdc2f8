// What the page's tests share: a real browser, the driver that plays Discord, and waiting.

import { createInterface } from 'node:readline';

import { chromium } from 'playwright-core';

const PATIENCE = 20_000;
const POLL = 50;

const said = createInterface({ input: process.stdin })[Symbol.asyncIterator]();

// Lets the driver, which started this script, do something: it gets a line, and says `done` in one.
export async function ask(what, ...told) {
  process.stdout.write(`do: ${[what, ...told.map((it) => JSON.stringify(it))].join(' ')}\n`);
  const { value, done } = await said.next();
  if (done || value !== 'done') throw new Error(`the driver could not do ${what}: ${value}`);
}

// Nothing more will be asked.
export const leave = () => process.stdin.destroy();

export const start = () =>
  chromium.launch({ executablePath: process.env.CHROMIUM || '/usr/bin/chromium', args: ['--no-sandbox'] });

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
export async function open(browser, url, options = {}) {
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
  await until('the page is live', () =>
    page.evaluate(
      () => document.body.dataset.feed === 'live' && document.querySelectorAll('.lamp').length === 4,
    ),
  );
  return { page, wrong, response, close: () => context.close() };
}

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
