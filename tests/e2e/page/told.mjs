// What the page makes of statuses that a driver cannot bring about at will, and of answers that do not come.

import assert from 'node:assert/strict';

import { PAGE, lamp, lowestContrast, number, onPage, play, text, until, untilLive } from './browser.mjs';

// Lets the page hear that, in place of the daemon.
const tell = (page, told) =>
  page.evaluate(
    (told) =>
      new Promise((resolve) => {
        /* global source, hear */
        source.close();
        hear(told);
        requestAnimationFrame(() => requestAnimationFrame(resolve));
      }),
    told,
  );

const statusNow = async () => (await fetch(new URL('status.json', PAGE))).json();

// The status as it is, with other checks, or the same otherwise.
async function withChecks(...checks) {
  const status = await statusNow();
  const names = checks.map(({ name }) => name);
  const others = status.checks.filter(({ name }) => !names.includes(name));
  return { ...status, checks: [...others.map((check) => ({ ...check, status: 'ok' })), ...checks] };
}

for (const colorScheme of ['light', 'dark'])
  onPage(`what is quiet is grey, where it is ${colorScheme}`, { colorScheme }, async (page) => {
    const color = (part) =>
      lamp(page, part)
        .locator('.sign')
        .evaluate((node) => getComputedStyle(node).color);
    const nothing = 'nothing came in the last 5 minutes';
    await tell(
      page,
      await withChecks(
        { name: 'endpoint', part: 'proxy', status: 'idle', text: nothing },
        { name: 'discord_api', part: 'discord', status: 'idle', text: 'it was not asked lately' },
        { name: 'answers', part: 'handlers', status: 'idle', text: nothing },
      ),
    );
    for (const part of ['proxy', 'discord']) {
      assert.equal(await lamp(page, part).getAttribute('data-state'), 'idle');
      assert.equal(await text(lamp(page, part).locator('h3 b')), 'quiet');
      assert.notEqual(await color(part), await color('daemon'));
    }
    assert.equal(await text(lamp(page, 'proxy').locator('p')), nothing);
    assert.equal(await lamp(page, 'handlers').getAttribute('data-state'), 'ok');
    assert.equal(await text(page.locator('#verdict')), 'All is well');
    assert.ok((await lowestContrast(page)).ratio >= 4.5);
  });

onPage('handlers whose answers fail are red, though they can be reached', {}, async (page) => {
  const failed = '9 of the last 10 interactions failed';
  await tell(
    page,
    await withChecks({ name: 'answers', part: 'handlers', status: 'degraded', text: failed }),
  );
  assert.equal(await lamp(page, 'handlers').getAttribute('data-state'), 'bad');
  assert.equal(await text(lamp(page, 'handlers').locator('p')), failed);
  assert.equal(await text(page.locator('#verdict')), 'The trouble is with the handlers');
});

onPage('of handlers with the same name, none hides another', {}, async (page) => {
  const status = await statusNow();
  const [handler] = status.handlers;
  const [app] = handler.apps;
  const of = (...states) => ({
    ...handler,
    replicas: states.map((state) => ({ ...handler.replicas[0], state, text: null })),
  });
  const shown = page.locator('#handlers > [data-handler]');
  const badge = page.locator(`#apps > [data-app=${JSON.stringify(app)}]`);
  for (const handlers of [
    [of('down'), of('up')],
    [of('up'), of('down')],
    [of('up'), of('down', 'up')],
  ]) {
    await tell(page, { ...status, handlers });
    assert.equal(await shown.count(), 2);
    assert.equal(await shown.locator('.replica').count(), handlers.flatMap((it) => it.replicas).length);
    assert.equal(await shown.locator('.replica[data-state=bad]').count(), 1);
    assert.equal(await badge.getAttribute('data-state'), 'bad');
  }
});

onPage('another life of the daemon has a processor time of its own', {}, async (page) => {
  const status = await statusNow();
  const at = (seconds, cpu_seconds) => ({
    ...status,
    time: status.time + seconds * 1000,
    daemon: { ...status.daemon, process: { ...status.daemon.process, cpu_seconds } },
  });
  const processor = page.locator('#process dd').nth(1);
  await tell(page, at(10, 5000));
  await tell(page, at(11, 5000.5));
  assert.equal(await text(processor), '50.0 % of a core');
  await page.evaluate((told) => {
    source.dispatchEvent(new MessageEvent('status', { data: JSON.stringify(told) }));
  }, { ...at(12, 0.1), daemon: { ...at(12, 0.1).daemon, started: status.daemon.started + 1 } });
  await until('it begins anew', async () => (await text(processor)) === '–');
});

onPage('charts that do not come are asked for again', {}, async (page) => {
  await play('for the chart');
  let asked = 0;
  // The first is never answered.
  await page.route('**/charts.json*', (route) => {
    asked += 1;
    if (asked > 1) return route.continue();
  });
  await page.reload();
  await untilLive(page);
  const charted = page.locator('#chart-rate [data-series=answered] b');
  await until('the chart is there', async () => (await number(charted)) > 0);
  assert.ok(asked > 1);
  assert.ok(await page.locator('#charts-note').isHidden());
});
