// ---- applications and handlers

const FEW = 6;
const unfolded = new Set();

// Shows the first of them, and a button for the rest.
function folded(id, items) {
  const button = $(`${id}-more`);
  button.hidden = items.length <= FEW || unfolded.has(id);
  set(button, `Show all ${count(items.length)}`);
  return unfolded.has(id) ? items : items.slice(0, FEW);
}

const healthOf = (handler) => worst(handler.replicas.map(({ state }) => REPLICAS[state]?.[0]));
const rank = { bad: 0, warn: 1, ok: 2, idle: 2 };

// The states of each application's handlers. Not by their names: several handlers may have the same.
function healthByApp(handlers) {
  const health = new Map();
  for (const handler of handlers)
    for (const app of handler.apps) {
      if (!health.has(app)) health.set(app, []);
      health.get(app).push(healthOf(handler));
    }
  return health;
}

function drawApps({ apps, handlers }) {
  const health = healthByApp(handlers);
  const judged = apps
    .map((app) => ({ app, state: worst(health.get(app.name) ?? []) }))
    .sort((a, b) => rank[a.state] - rank[b.state]);
  set($('apps-count'), count(apps.length));
  sync(
    $('apps'),
    folded('apps', judged),
    ({ app }) => app.name,
    ({ app }) => {
      const name = make(
        'button',
        { class: 'link theirs', type: 'button', title: 'Show this application alone' },
        app.name,
      );
      name.addEventListener('click', () => choose('app', view.app === app.name ? '' : app.name));
      return make(
        'div',
        { data: { app: app.name } },
        make('div', { class: 'top' }, name, make('span'), make('span', { class: 'end' })),
        make('p', { class: 'sub' }),
        make('div', { class: 'share', 'aria-hidden': 'true' }),
        make('p', { class: 'totals' }),
      );
    },
    (node, { app, state }) => {
      const [top, where, share, totals] = node.children;
      node.dataset.state = state;
      refill(top.children[1], state, () =>
        tag(state, { ok: 'ok', warn: 'handler fails', bad: 'handler down', idle: 'not called yet' }[state]),
      );
      // Here, and not with the totals, where its coming and going would move whatever is below.
      const last = app.last === null ? 'nothing yet' : `${age(now() - app.last)} ago`;
      set(top.children[2], app.in_flight[0] ? `${count(app.in_flight[0])} in flight, ${last}` : last);
      top.children[2].title = `${partOf(app.in_flight)} in flight`;
      set(where, `${app.path} → ${app.handlers.join(', ') || 'its routes’ replies'}`);
      const shown = Object.entries(OUTCOMES).filter(([outcome]) => app.totals[outcome]);
      const all = sum(Object.values(app.totals));
      sync(
        share,
        shown,
        ([outcome]) => outcome,
        ([, [, color]]) => swatch(color),
        (part, [outcome]) => {
          part.style.flexGrow = app.totals[outcome] / all;
        },
      );
      refill(totals, app.totals, () =>
        shown.map(([outcome, [word]]) =>
          make('span', null, make('b', null, count(app.totals[outcome])), ` ${word}`),
        ),
      );
    },
  );
}

function drawHandlers({ handlers }) {
  const sorted = handlers
    .map((handler, index) => ({ handler, index }))
    .sort((a, b) => rank[healthOf(a.handler)] - rank[healthOf(b.handler)]);
  set($('handlers-count'), count(handlers.length));
  sync(
    $('handlers'),
    folded('handlers', sorted),
    ({ handler, index }) => `${index} ${handler.name}`,
    ({ handler }) =>
      make(
        'div',
        { data: { handler: handler.name } },
        make(
          'div',
          { class: 'top' },
          make('span', { class: 'theirs' }, handler.name),
          make('span', { class: 'end' }),
        ),
        make('p', { class: 'sub' }),
        make('div'),
      ),
    (node, { handler }) => {
      const [top, apps, replicas] = node.children;
      const deferred = handler.deferred[0] ? `, ${count(handler.deferred[0])} deferred` : '';
      set(top.lastChild, `${count(handler.in_flight[0])} in flight${deferred}`);
      top.lastChild.title = `${partOf(handler.in_flight)} in flight, ${partOf(handler.deferred)} deferred`;
      set(
        apps,
        handler.apps.length > 4
          ? `for ${count(handler.apps.length)} applications`
          : `for ${handler.apps.join(', ') || 'no application'}`,
      );
      sync(
        replicas,
        handler.replicas,
        ({ url }, index) => `${index} ${url}`,
        () => make('div', { class: 'replica' }),
        (row, replica) => {
          const [state, word] = REPLICAS[replica.state] ?? ['idle', replica.state];
          row.dataset.state = state;
          const since = [
            replica.in_flight ? `${count(replica.in_flight)} in flight` : '',
            replica.since ? `for ${age(now() - replica.since)}` : '',
          ]
            .filter(Boolean)
            .join(', ');
          refill(row, [replica.url, replica.state, replica.text, since], () => [
            tag(state, word),
            make('span', { class: 'theirs', title: replica.url }, replica.url),
            make('small', null, since),
            replica.text ? make('p', { class: 'sub' }, plain(replica.text)) : null,
          ]);
        },
      );
    },
  );
}

for (const id of ['apps', 'handlers'])
  $(`${id}-more`).addEventListener('click', () => {
    unfolded.add(id);
    render();
  });

// ---- what was turned away, and the small figures

function drawRefusals({ refusals, connection_faults: faults }) {
  const rows = Object.entries({ ...refusals, ...faults })
    .filter(([, times]) => times)
    .sort((a, b) => b[1] - a[1]);
  $('chart-refused').hidden = !rows.length;
  refill($('refusals'), rows, () =>
    rows.length
      ? rows.map(([reason, times]) =>
          make(
            'div',
            { class: 'reason', data: { reason } },
            make(
              'div',
              { class: 'top' },
              make('b', null, reason.replaceAll('_', ' ')),
              make('span', { class: 'n' }, count(times)),
            ),
            make('p', { class: 'sub' }, REASONS[reason] ?? ''),
          ),
        )
      : [
          make(
            'p',
            { class: 'hint' },
            'Nothing yet. Scanners and Discord’s own test with a forged signature will show up here.',
          ),
        ],
  );
}

const pair = (name, value, state) =>
  make('div', state ? { data: { state } } : null, make('dt', null, name), make('dd', null, value));
const pairs = (...rows) => make('dl', { class: 'pairs' }, ...rows);

function meter(name, [taken, limit], format = count) {
  const part = limit ? taken / limit : 0;
  const fill = make('i');
  fill.style.width = `${Math.min(100, part * 100)}%`;
  const state = part > 0.9 ? 'bad' : part > 0.7 ? 'warn' : null;
  return make(
    'div',
    { class: 'meter', ...(state && { data: { state } }) },
    make('dt', null, name),
    make('dd', null, limit === null ? `${format(taken)}, no limit` : partOf([taken, limit], format)),
    limit === null ? null : make('dd', { class: 'gauge', 'aria-hidden': 'true' }, fill),
  );
}

function drawOutbox({ outbox }) {
  set($('outbox-status'), outbox.status);
  const since = (ms) => (ms === null || ms === undefined ? '–' : age(ms));
  const figures = [
    outbox.entries,
    outbox.undelivered,
    since(outbox.oldest),
    since(outbox.oldest_undelivered),
    outbox.text,
    outbox.ends,
    outbox.discord,
  ];
  const listed = (counts, worded) =>
    Object.entries(counts)
      .filter(([, times]) => times)
      .map(worded)
      .join(', ') || 'none yet';
  refill($('outbox'), figures, () =>
    pairs(
      outbox.text ? pair('Says', plain(outbox.text), 'bad') : null,
      pair('Deferred, not over', count(outbox.entries)),
      pair('Oldest of them', figures[2]),
      pair('Not yet delivered', count(outbox.undelivered), outbox.undelivered ? 'warn' : null),
      outbox.undelivered ? pair('Oldest of them', figures[3], 'warn') : null,
      pair(
        'How they ended',
        listed(outbox.ends, ([end, times]) => `${count(times)} ${end.replaceAll('_', ' ')}`),
      ),
      pair(
        'Discord’s REST API said',
        listed(outbox.discord, ([code, times]) => `${code === 'none' ? 'nothing' : code} × ${count(times)}`),
      ),
    ),
  );
}

function drawLimits({ daemon }) {
  refill($('limits'), daemon.limits, () =>
    pairs(
      ...Object.entries(daemon.limits).map(([name, taken]) =>
        meter(LIMITS[name] ?? name, taken, name === 'buffered' ? bytes : count),
      ),
    ),
  );
}

let cpu = null;

function drawProcess({ daemon, config, certificate, time }) {
  const {
    memory = null,
    open_files: files = null,
    max_open_files: most = null,
    cpu_seconds: seconds = null,
    threads = null,
  } = daemon.process ?? {};
  if (cpu && time > cpu.time && seconds !== null)
    cpu.share = (seconds - cpu.seconds) / ((time - cpu.time) / 1000);
  cpu = { time, seconds, share: cpu?.share };
  const busy = cpu.share === undefined ? '–' : `${(cpu.share * 100).toFixed(1)} % of a core`;
  refill($('process'), [daemon.process, busy, config, certificate], () =>
    pairs(
      pair('Memory', memory === null ? '–' : bytes(memory)),
      pair('Processor', busy),
      files === null ? null : meter('Open files', [files, most]),
      pair('Threads', threads === null ? '–' : count(threads)),
      pair('Verifies with', daemon.verification),
      pair('Listens on', `${daemon.listens.map(plain).join(', ')}${daemon.tls ? ', TLS' : ''}`),
      pair('Config', `${plain(config.file)}, of ${withDay.format(config.loaded)}`),
      certificate
        ? pair(
            'Certificate until',
            withDay.format(certificate.expires),
            certificate.expires - time < 14 * 864e5 ? 'warn' : null,
          )
        : null,
    ),
  );
}
