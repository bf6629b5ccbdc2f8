// The status page in a real browser, before a running daemon that a driver plays Discord to.
//
// The driver starts `node page.test.mjs` with the page's address in PAGE, the application's name in APP and the browser's
// program in CHROMIUM. A line `do: …` on standard output is for it; it says `done` on standard input when that is so:
//
//   do: play {"kind":"command","name":"music play","times":5}   that many interactions, one after the other; their answers have come
//   do: forge 3                                                 that many requests whose signature does not hold
//   do: kill, do: revive                                        the application's only handler ends, comes back
//   do: stop, do: start                                         so does the daemon, with its port
//   do: break, do: mend                                         the config file gets a mistake, loses it; the daemon is told to reload
//
// All other lines are the tests' report; the exit status is the verdict.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import {
  APP,
  PAGE,
  ask,
  fitsInWidth,
  lamp,
  lowestContrast,
  number,
  onPage,
  openUnemulated,
  play,
  rowOf,
  rows,
  text,
  total,
  until,
} from './browser.mjs';
import './told.mjs';

const SIZE = 120_000;
const FIRST_PAINT = 300;
const HOSTILE = [
  '<img src=x onerror=alert(1)>',
  '"><script>alert(2)</script>',
  'left \u202Eright\u202C\nnext line',
  'W'.repeat(100),
  'Z\u0335\u0340\u0341\u0342a\u0335\u0340\u0341\u0342lgo',
];

onPage('it is small, whole and soon there', {}, async (page, { response }) => {
  const html = await response.body();
  assert.ok(html.length <= SIZE, `${html.length} bytes`);
  const policy = response.headers()['content-security-policy'];
  assert.match(policy, /default-src 'none'/);
  assert.doesNotMatch(policy, /unsafe/);
  const paints = [];
  for (let run = 0; run < 5; run += 1) {
    await page.reload();
    const paint = await until('it is painted', () =>
      page.evaluate(() => performance.getEntriesByName('first-contentful-paint')[0]?.startTime),
    );
    paints.push(paint);
  }
  paints.sort((a, b) => a - b);
  console.log(`${html.length} bytes; first paint after ${paints.map((ms) => Math.round(ms)).join(', ')} ms`);
  const median = paints[Math.floor(paints.length / 2)];
  assert.ok(median <= FIRST_PAINT, `first paint after ${median} ms`);
});

onPage('its numbers are those of what was sent', {}, async (page) => {
  await play('first of all');
  await until('the first is there', async () => (await rowOf(page, 'first of all').count()) === 1);
  const answered = await total(page, 'answered');
  const charted = page.locator('#chart-rate [data-series=answered] b');
  const [inChart, picture] = [await number(charted), await page.locator('#chart-rate svg').innerHTML()];
  await play('count me', 5);
  await until('five more were answered', async () => (await total(page, 'answered')) === answered + 5);
  await until('five more are in the chart', async () => (await number(charted)) === inChart + 5);
  assert.notEqual(await page.locator('#chart-rate svg').innerHTML(), picture);
  assert.equal(await rows(page).filter({ hasText: 'count me' }).count(), 5);
  const status = await (await fetch(new URL('status.json', PAGE))).json();
  assert.equal(status.apps.find(({ name }) => name === APP).totals.answered, answered + 5);
});

onPage('the charts move and can be read, by mouse and by keys', {}, async (page) => {
  await play('for the chart', 3);
  for (const id of ['chart-rate', 'chart-latency']) {
    const svg = page.locator(`#${id} svg`);
    const before = await svg.innerHTML();
    await until(`${id} moves`, async () => (await svg.innerHTML()) !== before);
    await svg.hover();
    await until(`${id} is read`, async () => /^\d\d:\d\d:\d\d$/.test(await text(page.locator(`#${id} .at`))));
    await page.mouse.move(0, 0);
  }
  await page.locator('#chart-rate svg').focus();
  await page.keyboard.press('ArrowLeft');
  assert.match(await text(page.locator('#chart-rate .at')), /^\d\d:\d\d:\d\d$/);
  await page.locator('#spans button', { hasText: '1h' }).click();
  assert.equal(await page.evaluate(() => location.hash), '#span=1h');
});

onPage('what is forged is counted and explained', {}, async (page) => {
  const forged = page.locator('[data-reason=bad_signature]');
  const before = (await forged.count()) ? await number(forged.locator('.n')) : 0;
  await ask('forge', 3);
  await until(
    'three more were forged',
    async () => (await forged.count()) && (await number(forged.locator('.n'))) === before + 3,
  );
  assert.match(await text(forged), /public_key/);
});

onPage('a row opens by mouse and by keyboard, and stays where it is', {}, async (page) => {
  await play('open me', 2);
  await until('both are there', async () => (await rows(page).filter({ hasText: 'open me' }).count()) >= 2);
  const row = rowOf(page, 'open me');
  const key = await row.getAttribute('data-key');
  await row.locator('summary').click();
  const body = page.locator(`[data-key="${key}"] .body`);
  await until('its timeline is there', async () => (await body.locator('.step').count()) >= 2);
  assert.match(await text(body), /Trace[0-9a-f]{32}/);
  await page.mouse.move(0, 0);
  const place = await row.boundingBox();
  await play('while you read', 3);
  await until(
    'they wait',
    async () =>
      (await page.locator('#fresh').isVisible()) && /^3 new$/.test(await text(page.locator('#fresh'))),
  );
  assert.deepEqual(await page.locator(`[data-key="${key}"]`).boundingBox(), place);
  await page.locator('#fresh').click();
  await until(
    'they came',
    async () => (await rows(page).filter({ hasText: 'while you read' }).count()) === 3,
  );
  assert.ok(await body.isVisible());
  await page.locator(`[data-key="${key}"] summary`).click();
  await page.locator(`[data-key="${key}"] summary`).focus();
  await page.keyboard.press('Enter');
  await until('Enter opens it', () => body.isVisible());
  await page.keyboard.press('Enter');
  await until('Enter closes it', async () => !(await body.count()));
  await page.keyboard.press('ArrowDown');
  assert.notEqual(await page.evaluate(() => document.activeElement.parentElement.dataset.key), key);
});

onPage('pause holds the rows, and going on lets them come', {}, async (page) => {
  await page.locator('#pause').click();
  const held = await page
    .locator('#rows')
    .evaluate((node) => [...node.children].map((row) => row.dataset.key));
  await play('not yet', 2);
  await until('they wait', async () => (await text(page.locator('#fresh'))) === '2 new');
  assert.deepEqual(
    await page.locator('#rows').evaluate((node) => [...node.children].map((row) => row.dataset.key)),
    held,
  );
  await page.locator('#pause').click();
  await until('they came', async () => (await rows(page).filter({ hasText: 'not yet' }).count()) === 2);
});

onPage('filters leave what fits, and stand in the address', {}, async (page) => {
  await play('needle');
  await play('hay', 2);
  await play('pin:1', 1, 'component');
  await until(
    'all are there',
    async () => (await rowOf(page, 'pin:1').count()) && (await rowOf(page, 'needle').count()),
  );
  await page.locator('[data-filter=q]').fill('NEEDLE');
  await until(
    'only it is left',
    async () =>
      (await rows(page).count()) >= 1 && (await rows(page).filter({ hasNotText: 'needle' }).count()) === 0,
  );
  await page.reload();
  await until(
    'the same after a reload',
    async () =>
      (await rows(page).count()) >= 1 && (await rows(page).filter({ hasNotText: 'needle' }).count()) === 0,
  );
  await page.locator('[data-filter=q]').fill('');
  await page.locator('[data-filter=kind]').selectOption('component');
  await until(
    'only components are left',
    async () => (await rowOf(page, 'pin:1').count()) && !(await rowOf(page, 'needle').count()),
  );
  assert.equal(await page.evaluate(() => location.hash), '#kind=component');
  await page.locator('[data-filter=kind]').selectOption('');
  await page.locator('[data-filter=outcome]').selectOption('answered');
  await page.locator('#interactions [data-filter=app]').selectOption(APP);
  await until(
    'both filters hold',
    async () =>
      (await rowOf(page, 'needle').count()) &&
      (await page.evaluate(() => location.hash)) === `#app=${APP}&outcome=answered`,
  );
  assert.equal(await page.locator('#traffic [data-filter=app]').inputValue(), APP);
  const charted = page.locator('#chart-rate [data-series=answered] b');
  await until('the charts are of that application', async () => (await number(charted)) > 0);
});

onPage('hostile names are text', {}, async (page) => {
  const elements = () => page.evaluate(() => document.querySelectorAll('img, script, iframe, object').length);
  const before = await elements();
  for (const name of HOSTILE) await play(name, 1, 'component');
  for (const name of HOSTILE.slice(0, 2))
    await until(`${name} is there`, async () => (await rowOf(page, name).count()) === 1);
  const turned = rowOf(page, 'left ‹U+202E›right‹U+202C›␊next line');
  await until('what turns text is shown', async () => (await turned.count()) === 1);
  await turned.locator('summary').click();
  const height = await rows(page).evaluateAll(
    (all) =>
      new Set(
        all
          .filter((row) => !row.querySelector('.why'))
          .map((row) => row.firstChild.getBoundingClientRect().height),
      ).size,
  );
  assert.equal(height, 1, 'all rows are equally high');
  assert.equal(await elements(), before);
  assert.ok(await fitsInWidth(page));
});

for (const width of [360, 375]) {
  onPage(
    `a phone ${width} wide needs no scrolling to the side`,
    { viewport: { width, height: 740 }, isMobile: true, hasTouch: true },
    async (page) => {
      // A name of its own: a row that came before would be moved by this one just when it is tapped.
      const name = `${width}${'W'.repeat(97)}`;
      await play(name, 1, 'component');
      const row = rowOf(page, name);
      await until('it is there', async () => (await row.count()) === 1);
      await row.locator('summary').tap();
      await until('it is open', () => row.locator('.body').isVisible());
      const wide = await page.evaluate(() =>
        [...document.querySelectorAll('body *')]
          .filter(
            (node) =>
              node.getBoundingClientRect().right > window.innerWidth + 0.5 &&
              !node.closest('pre, .away, .theirs, svg'),
          )
          .map((node) => node.outerHTML.slice(0, 80)),
      );
      assert.deepEqual(wide, []);
      assert.ok(await fitsInWidth(page));
    },
  );
}

const backgrounds = {};
for (const colorScheme of ['light', 'dark']) {
  onPage(
    `its text can be read where it is ${colorScheme}`,
    { colorScheme, reducedMotion: 'reduce' },
    async (page) => {
      const name = `read me, ${colorScheme}`;
      await play(name);
      await until('it is there', async () => (await rowOf(page, name).count()) > 0);
      await rowOf(page, name).locator('summary').click();
      await page.mouse.move(0, 0);
      const { ratio, where } = await lowestContrast(page);
      console.log(`${colorScheme}: the lowest contrast is ${ratio.toFixed(2)} (${where})`);
      assert.ok(ratio >= 4.5, `${ratio} of ${where}`);
      backgrounds[colorScheme] = await page.evaluate(() => getComputedStyle(document.body).backgroundColor);
      if (backgrounds.light && backgrounds.dark) assert.notEqual(backgrounds.light, backgrounds.dark);
    },
  );
}

onPage(
  'a handler that dies is red within three seconds, and green again when it is back',
  {},
  async (page) => {
    await play('alive');
    await until(
      'its lamp is green',
      async () => (await lamp(page, 'handlers').getAttribute('data-state')) === 'ok',
    );
    await ask('kill');
    const begin = performance.now();
    // Without any call: while somebody looks at the page, the daemon looks after its handlers.
    await until(
      'its lamp is red',
      async () => (await lamp(page, 'handlers').getAttribute('data-state')) === 'bad',
      3000,
    );
    console.log(`a dead handler was red after ${Math.round(performance.now() - begin)} ms`);
    assert.equal(await text(page.locator('#verdict')), 'The trouble is with the handlers');
    assert.equal(await page.locator('#handlers .replica[data-state=bad]').count(), 1);
    await play('too late');
    await until(
      'its row says why',
      async () => (await rowOf(page, 'too late').locator('.why').count()) === 1,
    );
    assert.ok((await lowestContrast(page)).ratio >= 4.5);
    await ask('revive');
    await until('its lamp is green again', async () => {
      await play('alive again');
      return (await lamp(page, 'handlers').getAttribute('data-state')) === 'ok';
    });
  },
);

test('a tab that nobody sees tells of trouble by its title and its icon', async () => {
  const opened = await openUnemulated(PAGE);
  const { page } = opened;
  try {
    const icon = () => page.locator('link[rel=icon]').getAttribute('href');
    await play('alive');
    await until('all is well', async () => /^✓/.test(await page.title()));
    const wellIcon = await icon();
    const other = await opened.openInFront();
    await until('it is hidden', () => page.evaluate(() => document.hidden));
    await ask('kill');
    await until(
      'its title tells',
      async () => (await page.title()) === '✕ The trouble is with the handlers · shardless',
    );
    assert.notEqual(await icon(), wellIcon);
    assert.ok(await page.evaluate(() => document.hidden), 'nobody saw it meanwhile');
    await ask('revive');
    await until('its title tells that too', async () => {
      await play('alive again');
      return /^✓/.test(await page.title());
    });
    assert.equal(await icon(), wellIcon);
    await other.close();
    await until(
      'all of it is drawn once it is seen',
      async () => (await rowOf(page, 'alive again').count()) === 1,
    );
  } finally {
    await opened.close();
  }
});

onPage(
  'a config that cannot be used is shown with its mistake, until it is mended',
  { viewport: { width: 360, height: 740 } },
  async (page) => {
    const broken = page.locator('#broken');
    assert.ok(await broken.isHidden());
    await ask('break');
    await until('the mistake is shown', () => broken.isVisible());
    const said = await text(page.locator('#broken-text'));
    assert.match(said, /\n.*\^/, 'with a caret where it is');
    assert.doesNotMatch(said, /[0-9a-f]{64}/, 'without any key');
    assert.match(await text(page.locator('#broken-facts')), /\.toml, \d+ s ago\. Mend it and reload/);
    assert.equal(await lamp(page, 'daemon').getAttribute('data-state'), 'warn');
    assert.equal(await text(page.locator('#verdict')), 'shardless needs a look');
    assert.ok(await fitsInWidth(page));
    assert.ok((await lowestContrast(page)).ratio >= 4.5);
    await ask('mend');
    await until('it is gone', () => broken.isHidden());
    await until(
      'its lamp is green again',
      async () => (await lamp(page, 'daemon').getAttribute('data-state')) === 'ok',
    );
  },
);

onPage(
  'a daemon that is gone is told, and its return too',
  { losesTheDaemon: true, viewport: { width: 360, height: 740 } },
  async (page, { wrong }) => {
    await ask('stop');
    await until(
      'the page says so',
      async () => (await page.evaluate(() => document.body.dataset.feed)) === 'lost',
    );
    await until(
      'in words',
      async () => (await text(page.locator('#verdict'))) === 'shardless does not answer',
    );
    assert.equal(await lamp(page, 'daemon').getAttribute('data-state'), 'bad');
    assert.match(await text(page.locator('#feed')), /reconnecting/);
    assert.ok(await fitsInWidth(page));
    await ask('start');
    await until(
      'it is live again',
      async () => (await page.evaluate(() => document.body.dataset.feed)) === 'live',
    );
    await play('after the restart');
    await until('it goes on', async () => (await rowOf(page, 'after the restart').count()) === 1);
    // A browser notes by itself that a connection failed.
    assert.deepEqual(
      wrong.filter((it) => !it.startsWith('Failed to load resource')),
      [],
    );
  },
);
