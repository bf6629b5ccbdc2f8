// ---- the feed

let status = null;
let heard = 0;
let source = null;
let asked = false;

// The daemon's time of day, whatever this machine's clock says.
const now = () => (status ? status.time + (performance.now() - heard) : Date.now());

function connect() {
  source?.close();
  source = new EventSource('events');
  source.addEventListener('status', (event) => {
    const [first, life] = [status === null, status?.daemon.started];
    hear(JSON.parse(event.data));
    if (status.daemon.started === life) interactions.clear();
    else forget();
    take(status.interactions, first);
    for (const app of new Set([null, view.app || null])) load(app);
  });
  source.addEventListener('tick', (event) => {
    hear(JSON.parse(event.data));
    take(status.interactions, false);
    for (const { app, slots } of status.charts ?? []) merge(app, slots);
    loadAgain();
  });
  source.onerror = () => {
    mark('lost');
    // A browser tries again by itself, unless it got an answer that is no stream.
    if (source.readyState === EventSource.CLOSED) setTimeout(connect, 2000);
  };
}

function hear(told) {
  status = told;
  heard = performance.now();
  // The dot beats with what comes, and so stands still with it.
  document.body.dataset.beat = document.body.dataset.beat === '1' ? '0' : '1';
  mark('live');
  render();
}

function mark(feed) {
  if (document.body.dataset.feed === 'waiting' && feed === 'lost') heard ||= performance.now();
  document.body.dataset.feed = feed;
  drawFeed();
  if (feed === 'lost' && status) render();
  else if (feed === 'lost') set($('verdict'), 'shardless does not answer');
}

setInterval(() => {
  const silence = performance.now() - heard;
  if (heard && silence > 4000) mark('lost');
  // A line that is dead without having said so.
  if (heard && silence > 15000 && Math.floor(silence / 1000) % 10 === 0) connect();
}, 1000);

function render() {
  // A tab that is not seen gets no frames, but its title and its icon are seen.
  if (document.hidden && status) attempt(() => drawTab(judge(status)));
  if (asked) return;
  asked = true;
  requestAnimationFrame(() => {
    asked = false;
    if (!status) return;
    for (const part of [
      drawHead,
      drawVerdict,
      drawBroken,
      drawEmpty,
      drawOptions,
      drawApps,
      drawHandlers,
      drawRefusals,
      drawOutbox,
      drawLimits,
      drawProcess,
      drawCharts,
      drawRows,
    ])
      attempt(() => part(status));
  });
}

// One part's trouble does not take the others with it.
function attempt(part) {
  try {
    part();
  } catch (error) {
    console.error(error);
  }
}

// ---- head, verdict, lamps

function drawFeed() {
  const { feed } = document.body.dataset;
  const [, word, old] = $('feed').children;
  set(word, { live: 'live', lost: 'reconnecting…' }[feed] ?? 'connecting…');
  set(old, feed === 'lost' && status ? `as of ${age(performance.now() - heard)} ago` : '');
}

function drawHead({ daemon }) {
  set($('version'), daemon.version);
  set($('uptime'), `up ${age(now() - daemon.started)}`);
}

const worst = (states) => ['bad', 'warn', 'ok'].find((state) => states.includes(state)) ?? 'idle';

function severity(check, { handlers, daemon }) {
  if (check.status !== 'degraded') return check.status === 'ok' ? 'ok' : 'idle';
  if (MILD.includes(check.name) || (check.name === 'serving' && daemon.state !== 'serving')) return 'warn';
  // Any trouble of a handler's is in this check, but if all still have connections it may be that of some calls alone.
  const isOfSome = check.name === 'handlers' && worst(handlers.map(healthOf)) !== 'bad';
  return isOfSome ? 'warn' : 'bad';
}

function lampOf(part, status) {
  const checks = status.checks
    .filter((check) => check.part === part)
    .map((check) => ({ ...check, state: severity(check, status) }));
  const state = worst(checks.map((check) => check.state));
  const wrong = checks.filter((check) => check.status === 'degraded');
  const told = wrong.length ? wrong : checks.filter((check) => check.state === state).slice(0, 1);
  const quiet = checks.length ? 'quiet' : 'not known yet';
  const word = { ok: 'ok', warn: 'needs a look', bad: 'trouble', idle: quiet }[state];
  return { part, state, word, texts: told.map(({ text }) => plain(text)) };
}

function lostLampOf(part, status) {
  if (part !== 'daemon') return { ...lampOf(part, status), state: 'idle', word: 'not known' };
  const text = 'This page has lost shardless: it has stopped, or the way to it is broken.';
  return { part, state: 'bad', word: 'no answer', texts: [text] };
}

// All of it as four lamps and a line.
function judge(status) {
  const isLost = document.body.dataset.feed === 'lost';
  const lamps = Object.keys(PARTS).map((part) => (isLost ? lostLampOf : lampOf)(part, status));
  const [line, state] = sentence(status, lamps, isLost);
  return { isLost, lamps, line, state };
}

function drawVerdict(status) {
  const verdict = judge(status);
  drawLamps(verdict.lamps);
  document.body.dataset.verdict = verdict.state;
  set($('verdict'), verdict.line);
  const old = `What follows is how things stood ${age(performance.now() - heard)} ago.`;
  set($('summary'), verdict.isLost ? old : summary());
  drawTab(verdict);
}

function drawLamps(lamps) {
  sync(
    $('lamps'),
    lamps,
    ({ part }) => part,
    ({ part }) => make('li', { class: 'lamp', data: { part } }),
    (node, lamp) => {
      node.dataset.state = lamp.state;
      refill(node, lamp, () => [
        make('span', { class: 'sign' }, sign(lamp.state)),
        make(
          'div',
          null,
          make('h3', null, PARTS[lamp.part][0], make('b', null, lamp.word)),
          ...lamp.texts.map((text) => make('p', null, text)),
        ),
      ]);
    },
  );
}

const ICONS = {
  ok: ['✓', '#1f9d63', "circle cx='8' cy='8' r='6'"],
  warn: ['▲', '#e0a100', "path d='M8 1l8 14H0z'"],
  bad: ['✕', '#d92d3a', "path d='M1 1h14v14H1z'"],
};

function drawTab({ line, state }) {
  const [letter, color, shape] = ICONS[state];
  const title = `${letter} ${line} · shardless`;
  if (document.title === title) return;
  document.title = title;
  const icon = `<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'><${shape} fill='${color}'/></svg>`;
  document.querySelector('link[rel=icon]').href = `data:image/svg+xml,${encodeURIComponent(icon)}`;
}

function sentence(status, lamps, isLost) {
  const list = (state) => lamps.filter((lamp) => lamp.state === state).map(({ part }) => PARTS[part][1]);
  const joined = (names) => new Intl.ListFormat('en').format(names);
  const [bad, warn] = [list('bad'), list('warn')];
  if (isLost) return ['shardless does not answer', 'bad'];
  if (bad.length) return [`The trouble is with ${joined(bad)}`, 'bad'];
  if (status.status === 'starting' || status.status === 'draining')
    return [`shardless is ${status.status}`, 'warn'];
  if (warn.length) {
    const line = `${joined(warn)} ${warn.length > 1 || warn[0] === 'the handlers' ? 'need' : 'needs'} a look`;
    return [line.startsWith('the') ? `T${line.slice(1)}` : line, 'warn'];
  }
  return ['All is well', 'ok'];
}

// The last minute in a line.
function summary() {
  const spans = stores.get(null)?.spans;
  if (!spans) return '\u00a0';
  const slots = [...spans['5m'].slots.values()].filter((slot) => slot[0] > now() / 1000 - 60);
  const all = sum(slots.map((slot) => sum(slot.slice(1, 9))));
  if (!all) return 'No interaction in the last minute.';
  const [late, failed] = [5, 6].map((column) => sum(slots.map((slot) => slot[column])));
  const slowest = Math.max(...slots.map((slot) => slot[12] ?? 0));
  const parts = [`${few(all, 'interaction', 'interactions')} in the last minute`];
  if (slowest) parts.push(`p95 at most ${took(slowest)}`);
  parts.push(failed + late ? `${count(failed)} failed, ${count(late)} late` : 'none failed');
  return parts.join('  ·  ');
}

function drawBroken({ config }) {
  $('broken').hidden = !config.error;
  if (!config.error) return;
  set(
    $('broken-facts'),
    `${plain(config.file)}, ${age(now() - config.error.time)} ago. Mend it and reload; until then the config of ${withDay.format(config.loaded)} is in force.`,
  );
  set($('broken-text'), config.error.text);
}

function drawEmpty({ apps, daemon, interactions: last }) {
  const isEmpty =
    interactions.size === 0 && !last.length && !apps.some(({ totals }) => sum(Object.values(totals)));
  for (const id of ['traffic', 'interactions']) $(id).hidden = isEmpty;
  $('empty').hidden = !isEmpty;
  if (!isEmpty) return;
  const paths = apps.slice(0, 3).map(({ path }) => path);
  const listen = (daemon.listens.find((it) => /:\d+$/.test(it)) ?? '127.0.0.1:3000')
    .replace('0.0.0.0', '127.0.0.1')
    .replace('[::]', '[::1]');
  set($('empty-url'), paths.map((path) => `https://YOUR-DOMAIN${path}`).join('\n'));
  set($('empty-probe'), `shardless probe https://YOUR-DOMAIN${paths[0] ?? '/interactions'}`);
  set(
    $('empty-send'),
    `shardless keygen\nshardless send ${daemon.tls ? 'https' : 'http'}://${listen}${paths[0] ?? '/interactions'} --command ping`,
  );
}

readHash();
connect();
