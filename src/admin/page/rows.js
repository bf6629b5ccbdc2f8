// ---- the last interactions

const KEPT = 200;
const FIRST = 25;
// More than this at once, and a mark on each would be a flicker.
const MARKED = 4;

const interactions = new Map();
let shown = [];
let isPaused = false;
let showsAll = false;
let arrived = new Set();

function take(told, isFirst) {
  const before = interactions.size;
  const added = told.filter(({ key }) => !interactions.has(key));
  for (const it of told) interactions.set(it.key, it);
  arrived = new Set(!isFirst && before && added.length <= MARKED ? added.map(({ key }) => key) : []);
  const held = new Set(shown);
  for (const it of newestFirst().slice(KEPT)) if (!held.has(it.key)) interactions.delete(it.key);
}

// Another life of the daemon counts its interactions anew, and its processor's time.
function forget() {
  interactions.clear();
  shown = [];
  cpu = null;
  sync(
    $('rows'),
    [],
    () => null,
    () => null,
  );
}

const newestFirst = () => [...interactions.values()].sort((a, b) => b.key - a.key);

// As text, in lower case, for the search.
const words = (it) =>
  [it.name, it.id, it.app, it.handler, it.text, it.client, it.trace, it.route, it.status]
    .join('\n')
    .toLowerCase();

function fits(it) {
  return (
    (!view.app || it.app === view.app) &&
    (!view.outcome || it.outcome === view.outcome) &&
    (!view.kind || it.kind === view.kind) &&
    (!view.q || words(it).includes(view.q.toLowerCase()))
  );
}

// While somebody reads a row, nothing may move it.
function isHeld() {
  return (
    isPaused ||
    ($('rows').matches(':hover') && matchMedia('(hover: hover)').matches) ||
    $('rows').querySelector('details[open], summary:focus-visible') !== null
  );
}

// Shows what fits now, whoever reads.
function rebuild() {
  shown = newestFirst()
    .filter(fits)
    .slice(0, showsAll ? KEPT : FIRST)
    .map(({ key }) => key);
}

function drawRows() {
  const held = isHeld();
  const fitting = newestFirst().slice(0, KEPT).filter(fits);
  if (!held || !shown.length) rebuild();
  shown = shown.filter((key) => interactions.has(key));
  const waiting = fitting.filter(({ key }) => key > (shown[0] ?? 0)).length;
  $('fresh').hidden = !waiting;
  set($('fresh'), `${count(waiting)} new`);
  const known = Math.min(interactions.size, KEPT);
  const howMany = fitting.length === known ? count(known) : partOf([fitting.length, known]);
  set(
    $('rows-count'),
    isPaused ? `${howMany}, paused` : waiting ? `${howMany}, held while you read` : howMany,
  );
  $('rows-none').hidden = shown.length > 0;
  set($('rows-none'), interactions.size ? 'No interaction fits these filters.' : 'No interaction yet.');
  $('more').hidden = showsAll || fitting.length <= FIRST;
  set($('more'), `Show all ${count(fitting.length)}`);
  sync(
    $('rows'),
    shown.map((key) => interactions.get(key)),
    ({ key }) => key,
    createRow,
    updateRow,
  );
}

function createRow({ key }) {
  const row = make('details', { class: 'i', data: { key } }, make('summary', { class: 'row' }));
  row.addEventListener('toggle', () => {
    if (row.open) {
      // Closed and opened at once is one event.
      if (!row.querySelector('.body')) row.append(make('div', { class: 'body' }));
      drawBody(row);
    } else {
      row.querySelector('.body')?.remove();
      render();
    }
  });
  return row;
}

function updateRow(row, it) {
  row.classList.toggle('new', arrived.has(it.key));
  if (row.it !== it) {
    row.it = it;
    const [word, color, state] = OUTCOMES[it.outcome] ?? [it.outcome, '--pong', 'ok'];
    row.dataset.outcome = it.outcome;
    row.firstChild.replaceChildren(
      draw(
        'svg',
        { class: 'fold', viewBox: '0 0 8 8', 'aria-hidden': 'true' },
        draw('path', { d: 'M2.5 1l3 3-3 3' }),
      ),
      make(
        'time',
        { dateTime: new Date(it.time).toISOString(), title: withDay.format(it.time) },
        withSeconds.format(it.time),
      ),
      make(
        'span',
        { class: 'name' },
        it.name === null ? null : make('b', { class: 'theirs' }, plain(it.name)),
        make('span', null, it.kind === 'ping' ? 'PING' : it.kind.replaceAll('_', ' ')),
      ),
      make('span', { class: 'theirs soft' }, it.app),
      make('span', { class: 'theirs soft', title: it.handler ?? '' }, it.handler ?? '–'),
      make('span', { class: 'outcome', data: { state } }, swatch(color), it.is_over ? word : `${word} …`),
      make('span', { class: 'ms' }, took(it.ms)),
      ...(it.text
        ? [
            make(
              'span',
              { class: 'why theirs', data: { state: state === 'ok' ? 'warn' : state } },
              plain(it.text),
            ),
          ]
        : []),
    );
    drawBody(row);
  } else if (!it.is_over) {
    drawBody(row);
  }
}

function drawBody(row) {
  const body = row.querySelector('.body');
  if (!body) return;
  const it = row.it;
  const [word, , state] = OUTCOMES[it.outcome] ?? [it.outcome, '', 'ok'];
  const facts = [
    ['Name', it.name === null ? null : plain(it.name)],
    ['Kind', it.kind],
    ['Outcome', `${word}, HTTP ${it.status}`],
    ['Application', it.app],
    ['Route', it.route && plain(it.route)],
    ['Handler', it.handler],
    ['Client', it.client],
    ['At', withDay.format(it.time)],
    ['Id', it.id],
    ['Trace', it.trace],
  ];
  body.replaceChildren(
    ...(it.text
      ? [make('p', { class: 'said', data: { state: state === 'ok' ? 'warn' : state } }, plain(it.text))]
      : []),
    timeline(it),
    make(
      'dl',
      { class: 'keys' },
      ...facts
        .filter(([, value]) => value)
        .map(([name, value]) =>
          make(
            'div',
            null,
            make('dt', null, name),
            make('dd', { class: /^(Id|Trace)$/.test(name) ? 'mono' : '' }, value),
          ),
        ),
    ),
  );
}

// Its steps as bars, to scale, with the deadlines that they had to keep.
function timeline(it) {
  const steps = it.is_over
    ? it.steps
    : [...it.steps, { at: Math.max(it.steps.at(-1)?.at ?? 0, now() - it.time), what: 'not over yet' }];
  const whole = Math.max(0.001, ...steps.map(({ at }) => at));
  const part = (ms) => `${((ms / whole) * 100).toFixed(3)}%`;
  const deadline = status.apps.find(({ name }) => name === it.app)?.answer_within;
  const marks = [
    [deadline, 'own', 'answer_within'],
    [DISCORD_GIVES_UP, 'discord', 'Discord gives up'],
  ].filter(([ms]) => ms && ms <= whole);
  return make(
    'div',
    { class: 'steps', role: 'list', 'aria-label': 'Timeline' },
    ...steps.map(({ at, what }, index) => {
      const before = steps[index - 1]?.at ?? 0;
      const bar = make('i');
      bar.style.left = `min(${part(before)}, 100% - 3px)`;
      bar.style.width = part(at - before);
      const track = make(
        'span',
        { class: 'track', 'aria-hidden': 'true' },
        bar,
        ...marks.map(([ms, name, title]) => {
          const mark = make('u', { class: name, title });
          mark.style.left = part(ms);
          return mark;
        }),
      );
      return make(
        'div',
        { class: 'step', role: 'listitem' },
        make('span', null, plain(what)),
        track,
        make('span', null, took(at)),
        make('span', null, index ? `+${took(at - before)}` : ''),
      );
    }),
  );
}

function drawOptions({ apps }) {
  const names = apps.map(({ name }) => name);
  const kinds = new Set([...KINDS, ...[...interactions.values()].map(({ kind }) => kind)]);
  const lists = {
    app: [['', 'All applications'], ...names.map((name) => [name, name])],
    outcome: [['', 'Any outcome'], ...Object.entries(OUTCOMES).map(([key, [word]]) => [key, word])],
    kind: [['', 'Any kind'], ...[...kinds].map((kind) => [kind, kind.replaceAll('_', ' ')])],
  };
  for (const field of document.querySelectorAll('select[data-filter]')) {
    const key = field.dataset.filter;
    if (view[key] && !lists[key].some(([value]) => value === view[key]))
      lists[key].push([view[key], plain(view[key])]);
    refill(field, lists[key], () => lists[key].map(([value, word]) => make('option', { value }, word)));
    if (field.value !== view[key]) field.value = view[key];
  }
}

$('pause').addEventListener('click', () => {
  isPaused = !isPaused;
  $('pause').setAttribute('aria-pressed', String(isPaused));
  render();
});
$('fresh').addEventListener('click', () => {
  rebuild();
  render();
});
$('more').addEventListener('click', () => {
  showsAll = true;
  rebuild();
  render();
});
$('rows').addEventListener('mouseleave', render);
$('rows').addEventListener('keydown', (event) => {
  const next = { ArrowDown: 'nextElementSibling', ArrowUp: 'previousElementSibling' }[event.key];
  const row = next && event.target.tagName === 'SUMMARY' && event.target.parentElement[next];
  if (!row) return;
  event.preventDefault();
  row.firstChild.focus();
});
