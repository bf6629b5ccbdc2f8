// ---- charts: SVG by hand, drawn anew each second

const SPANS = ['5m', '1h', '24h'];
const COLUMNS = [
  'time',
  'answered',
  'replied',
  'handler_answers_itself',
  'deferred',
  'late',
  'failed',
  'duplicate',
  'pong',
  'forged',
  'refused',
  'p50',
  'p95',
  'p99',
];
const COLUMN = Object.fromEntries(COLUMNS.map((name, at) => [name, at]));
const HEIGHT = 204;
const EDGE = { left: 38, right: 2, top: 10, bottom: 22 };
// A bar narrower than this says nothing.
const BAR = 5;

// A browser lets a host have few connections, and each page that is open holds one: this one may have to wait.
const LOADING_TAKES = 5000;

// By application; `null` is all of them.
const stores = new Map();
const loading = new Map();
// Those that are to be tried again.
const failed = new Set();
// The point in time that the reader looks at, as a part of the width.
let cursor = null;

async function load(app) {
  if (!status || loading.has(app)) return;
  loading.set(app, []);
  try {
    stores.set(app, { spans: await fetchSpans(app) });
    failed.delete(app);
  } catch {
    // What was known stays, and whatever has come since is put to it.
    if (!stores.has(app)) stores.set(app, { spans: null });
    failed.add(app);
  } finally {
    const missed = loading.get(app);
    loading.delete(app);
    for (const slots of missed) merge(app, slots);
  }
  render();
}

// `null` where there are none of that application.
async function fetchSpans(app) {
  const query = app === null ? '' : `?app=${encodeURIComponent(app)}`;
  const answer = await fetch(`charts.json${query}`, { signal: AbortSignal.timeout(LOADING_TAKES) });
  if (answer.status === 404) return null;
  if (!answer.ok) throw new Error(String(answer.status));
  const { spans } = await answer.json();
  return Object.fromEntries(
    spans.map(({ name, step, length, slots }) => [
      name,
      { step, length, slots: new Map(slots.map((slot) => [slot[0], slot])) },
    ]),
  );
}

function loadAgain() {
  for (const app of [null, view.app || null]) if (failed.has(app)) load(app);
}

function merge(app, slots) {
  loading.get(app)?.push(slots);
  const spans = stores.get(app)?.spans;
  if (!spans) return;
  for (const { span, slot } of slots) {
    const held = spans[span];
    if (!held) continue;
    held.slots.set(slot[0], slot);
    const oldest = slot[0] - (held.length + 2) * held.step;
    for (const time of held.slots.keys()) {
      if (time >= oldest) break;
      held.slots.delete(time);
    }
  }
}

function chart(id, title, unit, legend, resting) {
  const figure = $(id);
  const picture = draw('svg', {
    role: 'img',
    tabindex: '0',
    'aria-label': `${title}. Arrow keys move the point that is read.`,
  });
  const parts = {
    figure,
    picture,
    unit: make('small', null, unit),
    at: make('small', { class: 'at' }),
    legend: make('ul', { class: 'legend' }),
    resting,
    width: 0,
  };
  figure.append(make('figcaption', null, title, parts.unit, parts.at), picture, parts.legend);
  parts.values = new Map(
    legend.map(([key, word, color]) => {
      const value = make('b');
      const item = make('li', { data: { series: key } }, swatch(color), word, value);
      parts.legend.append(item);
      return [key, { item, value }];
    }),
  );
  const look = (at) => {
    cursor = at;
    drawCharts();
  };
  picture.addEventListener('pointermove', ({ clientX }) => {
    const box = picture.getBoundingClientRect();
    look(Math.min(1, Math.max(0, (clientX - box.left - EDGE.left) / (box.width - EDGE.left - EDGE.right))));
  });
  picture.addEventListener('pointerleave', ({ pointerType }) => pointerType === 'mouse' && look(null));
  picture.addEventListener('blur', () => look(null));
  picture.addEventListener('keydown', (event) => {
    const step = { ArrowLeft: -0.01, ArrowRight: 0.01 }[event.key];
    if (event.key === 'Escape') look(null);
    if (!step) return;
    event.preventDefault();
    look(Math.min(1, Math.max(0, (cursor ?? 1) + step)));
  });
  new ResizeObserver(([{ contentRect }]) => {
    parts.width = Math.round(contentRect.width);
    render();
  }).observe(picture);
  return parts;
}

const outcomes = Object.entries(OUTCOMES).map(([key, [word, color]]) => [key, word, color]);
const refused = [
  ['forged', 'forged or unsigned', '--p99'],
  ['refused', 'refused otherwise', '--duplicate'],
];
const percentiles = [
  ['p50', 'p50', '--p50'],
  ['p95', 'p95', '--p95'],
  ['p99', 'p99', '--p99'],
];
const charts = {
  rate: chart('chart-rate', 'Interactions', '', outcomes, () => `all of ${view.span}`),
  latency: chart('chart-latency', 'Time to an answer', 'log scale', percentiles, () => 'latest'),
  refused: chart('chart-refused', 'Turned away', '', refused, () => `all of ${view.span}`),
};

for (const name of SPANS) {
  const button = make(
    'button',
    { type: 'button', value: name, 'aria-pressed': String(name === view.span) },
    name,
  );
  button.addEventListener('click', () => choose('span', name));
  $('spans').append(button);
}

function drawCharts() {
  if (!status) return;
  const app = view.app || null;
  const store = stores.get(app);
  const note = $('charts-note');
  note.hidden = store?.spans !== null;
  set(
    note,
    failed.has(app)
      ? 'The charts could not be loaded yet; the next try is under way.'
      : `No charts are kept of ${plain(app)}: they are kept of the first 24 applications, by name.`,
  );
  drawBars(charts.rate, store, outcomes);
  drawLatency(store);
  drawBars(charts.refused, stores.get(null), refused);
}

// Where in the chart a time is, and which slots it shows.
function frame(parts, store) {
  const span = store?.spans?.[view.span] ?? { step: 1, length: 300, slots: new Map() };
  const { step, length } = span;
  const inner = Math.max(1, parts.width - EDGE.left - EDGE.right);
  const group = Math.max(1, Math.ceil((BAR * length) / inner)) * step;
  const end = (Math.floor(now() / 1000 / step) + 1) * step;
  const begin = end - length * step;
  const slots = [...span.slots.values()]
    .filter(([time]) => time >= begin && time < end)
    .sort((a, b) => a[0] - b[0]);
  const x = (time) => EDGE.left + ((time - begin) / (end - begin)) * inner;
  const read = cursor === null ? null : Math.min(end - step, begin + cursor * (end - begin));
  return {
    step,
    group,
    begin,
    end,
    inner,
    slots,
    x,
    read,
    bottom: HEIGHT - EDGE.bottom,
    height: HEIGHT - EDGE.top - EDGE.bottom,
  };
}

function axis({ begin, end, inner, x }) {
  const spacing =
    [60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 14400, 21600, 43200].find(
      (it) => ((end - begin) / it) * 52 < inner,
    ) ?? 43200;
  const zone = new Date(begin * 1000).getTimezoneOffset() * 60;
  const labels = [];
  for (let time = (Math.floor((begin - zone) / spacing) + 1) * spacing + zone; time < end; time += spacing) {
    const at = x(time);
    if (at > EDGE.left + 16 && at < EDGE.left + inner - 14)
      labels.push(
        draw('text', { x: at, y: HEIGHT - 5, 'text-anchor': 'middle' }, withMinutes.format(time * 1000)),
      );
  }
  return labels;
}

const rule = (y, width) => draw('line', { class: 'grid', x1: EDGE.left, x2: width, y1: y, y2: y });
const label = (y, text) => draw('text', { x: EDGE.left - 7, y: y + 4, 'text-anchor': 'end' }, text);

function paint({ picture, width, at, resting }, { read, group, step, x, bottom }, ...nodes) {
  picture.setAttribute('viewBox', `0 0 ${width || 1} ${HEIGHT}`);
  const line =
    read === null
      ? []
      : [draw('line', { class: 'cursor', x1: x(read), x2: x(read), y1: EDGE.top - 4, y2: bottom })];
  picture.replaceChildren(...nodes.flat(), ...line);
  set(
    at,
    read === null
      ? resting()
      : (step < 60 ? withSeconds : withMinutes).format(Math.floor(read / group) * group * 1000),
  );
}

function niceTop(value) {
  const size = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 3, 4, 5, 6, 8, 10].find((it) => it * size >= value) * size;
}

function drawBars(parts, store, series) {
  const at = frame(parts, store);
  const bars = new Map();
  for (const slot of at.slots) {
    const time = Math.floor(slot[0] / at.group) * at.group;
    const bar = bars.get(time) ?? series.map(() => 0);
    series.forEach(([key], index) => {
      bar[index] += slot[COLUMN[key]];
    });
    bars.set(time, bar);
  }
  const most = Math.max(0, ...[...bars.values()].map(sum)) / at.group;
  const [unit, per] =
    most >= 1 ? ['per second', 1] : most * 60 >= 1 || !most ? ['per minute', 60] : ['per hour', 3600];
  const top = most ? niceTop(most * per) : 1;
  const y = (rate) => at.bottom - (rate / top) * at.height;
  const paths = series.map(() => '');
  const gap = (at.group / (at.end - at.begin)) * at.inner > 4 ? 1 : 0;
  for (const [time, bar] of bars) {
    const left = Math.max(EDGE.left, at.x(time));
    const right = Math.min(at.x(time + at.group), EDGE.left + at.inner) - gap;
    let below = 0;
    bar.forEach((value, index) => {
      if (!value) return;
      const [from, to] = [y((below * per) / at.group), y(((below + value) * per) / at.group)];
      below += value;
      paths[index] +=
        `M${left.toFixed(1)} ${from.toFixed(1)}H${right.toFixed(1)}V${Math.min(to, from - 0.8).toFixed(1)}H${left.toFixed(1)}Z`;
    });
  }
  const scale = [0, top / 2, top].flatMap((value) => [
    rule(Math.round(y(value)), parts.width),
    label(y(value), compact.format(value)),
  ]);
  const areas = paths.map((d, index) => {
    const path = draw('path', { d });
    path.style.fill = `var(${series[index][2]})`;
    return path;
  });
  paint(parts, at, scale, axis(at), areas, bars.size ? [] : nothing(parts));
  set(parts.unit, unit);
  const picked =
    at.read === null ? null : (bars.get(Math.floor(at.read / at.group) * at.group) ?? series.map(() => 0));
  const all = series.map(([key]) => sum(at.slots.map((slot) => slot[COLUMN[key]])));
  series.forEach(([key], index) => {
    const { item, value } = parts.values.get(key);
    // What does not happen needs no word, but what must not happen does.
    item.hidden = !all[index] && key !== 'answered' && key !== 'failed' && series.length > 2;
    set(value, count((picked ?? all)[index]));
  });
}

const compact = new Intl.NumberFormat('en', { notation: 'compact', maximumSignificantDigits: 3 });
const nothing = ({ width }) =>
  draw(
    'text',
    { x: EDGE.left + (width - EDGE.left) / 2, y: HEIGHT / 2, 'text-anchor': 'middle' },
    'nothing in this time',
  );

function drawLatency(store) {
  const parts = charts.latency;
  const at = frame(parts, store);
  const slots = at.slots.filter((slot) => slot[COLUMN.p50] !== null);
  const low = slots.some((slot) => slot[COLUMN.p50] < 1) ? 0.1 : 1;
  const high = slots.some((slot) => slot[COLUMN.p99] > 5000) ? 20000 : 6000;
  const y = (ms) =>
    at.bottom - (Math.log(Math.min(high, Math.max(low, ms)) / low) / Math.log(high / low)) * at.height;
  const scale = [0.1, 1, 10, 100, 1000, 10000]
    .filter((ms) => ms >= low && ms <= high)
    .flatMap((ms) => [
      rule(Math.round(y(ms)), parts.width),
      label(y(ms), ms < 1000 ? `${ms} ms` : `${ms / 1000} s`),
    ]);
  const middle = (slot) => at.x(slot[0] + at.step / 2).toFixed(1);
  const lines = percentiles.map(([key, , color]) => {
    let d = '';
    let last = -Infinity;
    for (const slot of slots) {
      // A stroke of no length is a dot: a slot that stands alone.
      const point = `${middle(slot)} ${y(slot[COLUMN[key]]).toFixed(1)}`;
      d += slot[0] - last <= Math.max(at.group, 2 * at.step) ? `L${point}` : `M${point}h0`;
      last = slot[0];
    }
    const path = draw('path', { d, class: 'line' });
    path.style.stroke = `var(${color})`;
    return path;
  });
  paint(parts, at, scale, axis(at), lines, deadlines(parts, y), slots.length ? [] : nothing(parts));
  const near =
    at.read === null
      ? slots.at(-1)
      : slots
          .filter((slot) => Math.abs(slot[0] + at.step / 2 - at.read) <= at.group)
          .sort((a, b) => Math.abs(a[0] - at.read) - Math.abs(b[0] - at.read))[0];
  for (const [key] of percentiles) set(parts.values.get(key).value, took(near?.[COLUMN[key]]));
}

// The label of Discord's own limit stands above its line, that of the applications' below the lowest: they are near.
function deadlines(parts, y) {
  const own = [
    ...new Set(
      status.apps.filter(({ name }) => !view.app || name === view.app).map((app) => app.answer_within),
    ),
  ]
    .filter(Boolean)
    .sort((a, b) => b - a);
  const shown = own.slice(0, 3);
  const rows = [[DISCORD_GIVES_UP, '--bad', `Discord gives up, ${DISCORD_GIVES_UP / 1000} s`, -5]];
  shown.forEach((ms, index) =>
    rows.push([
      ms,
      '--warn',
      index === shown.length - 1 && `answer_within, ${shown.map((it) => `${it / 1000} s`).join(', ')}`,
      13,
    ]),
  );
  return rows.flatMap(([ms, color, text, off]) => {
    const line = draw('line', {
      class: 'limit',
      x1: EDGE.left,
      x2: parts.width,
      y1: Math.round(y(ms)),
      y2: Math.round(y(ms)),
    });
    line.style.stroke = `var(${color})`;
    if (!text) return [line];
    const words = draw('text', { x: parts.width - 4, y: y(ms) + off, 'text-anchor': 'end' }, text);
    words.style.fill = `var(${color})`;
    return [line, words];
  });
}
