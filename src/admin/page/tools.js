'use strict';
// The status page. Whatever the daemon tells ends as text, never as markup: names in it are chosen by strangers.

// ---- words and tables

const OUTCOMES = {
  answered: ['answered', '--answered', 'ok'],
  replied: ['replied by route', '--replied', 'ok'],
  handler_answers_itself: ['handler by itself', '--itself', 'ok'],
  deferred: ['deferred', '--deferred', 'ok'],
  late: ['late', '--late', 'warn'],
  failed: ['failed', '--failed', 'bad'],
  duplicate: ['duplicate', '--duplicate', 'ok'],
  pong: ['pong', '--pong', 'ok'],
};
const KINDS = ['command', 'component', 'autocomplete', 'modal', 'ping'];
const PARTS = {
  discord: ['Discord', 'Discord'],
  proxy: ['Proxy', 'the proxy'],
  daemon: ['shardless', 'shardless'],
  handlers: ['Handlers', 'the handlers'],
};
// Checks whose trouble does not keep interactions from their answers.
const MILD = ['config', 'capacity', 'certificate'];
const REPLICAS = {
  up: ['ok', 'up'],
  failing: ['warn', 'failing'],
  down: ['bad', 'down'],
  left_out: ['bad', 'left out'],
  unknown: ['idle', 'not called yet'],
};
const SIGNS = {
  ok: 'M3.5 8.5l3 3 6-7',
  warn: 'M8 3v6M8 12.6v.01',
  bad: 'M4 4l8 8M12 4l-8 8',
  idle: 'M4 8h8',
};
const LIMITS = {
  connections: 'Connections',
  in_flight: 'Interactions in flight',
  deferred: 'Deferred interactions',
  buffered: 'Held in memory',
};
const DISCORD_GIVES_UP = 3000;
const REASONS = {
  bad_signature:
    'Signed with another key. Discord itself sends a few as a test; if all are refused, compare public_key with the portal’s.',
  signature_headers:
    'Without Discord’s signature headers: scanners, mostly. If Discord’s come so too, the proxy drops headers.',
  timestamp: 'Its time is too far from now. If many come, look at this machine’s clock (timedatectl).',
  unknown_path:
    'No application has this path: scanners, mostly. Compare the path in the portal with the config’s.',
  method: 'Not a POST: browsers and scanners. Nothing to do.',
  media_type: 'Not JSON. Discord always sends it; the proxy may have changed the content type.',
  framing: 'Not sound HTTP: it could be read in two ways. If it comes from your proxy, look at its version.',
  target_too_long: 'A longer URL than any endpoint has: scanners. Nothing to do.',
  expectation: 'An Expect header other than 100-continue. Nothing to do, unless your proxy adds it.',
  body_too_large: 'A larger body than limits.body allows. Discord’s are smaller.',
  body_timeout: 'The body took too long. Let the proxy buffer requests, or look at the line between them.',
  body_broken: 'The body broke off half way: the client or the proxy gave up.',
  not_an_interaction:
    'Rightly signed, but no interaction that is known. A newer Discord, or a newer shardless, is about.',
  replayed:
    'The same signed request once more, after its answer. Some is Discord’s repeating; much is somebody’s replaying.',
  in_flight: 'Too many wait for their answers. The handlers are too slow, or limits.in_flight is too low.',
  no_memory: 'Too much is held in memory. The handlers are too slow, or limits.buffered is too low.',
  panicked: 'A fault in shardless itself. Please report it with the lines of the log.',
  malformed_http: 'What came is no HTTP: scanners, mostly.',
  broken_off: 'The client hung up in the middle of a request.',
  slow_request: 'A request took too long to arrive. A flood of them is an attack that did no harm.',
  slow_reader: 'The client did not take its answer in time.',
  tls_on_plain_port: 'TLS came to where plain HTTP is spoken: let the proxy use http://, or set [tls].',
  http_on_tls_port: 'Plain HTTP came to where TLS is spoken: let the proxy use https://.',
  handshake: 'The TLS handshake failed: the proxy does not trust the certificate, or it was a scanner.',
  crowded: 'Every connection there may be was open, or no file was left for another, and this one was idle.',
  slow_handshake: 'The TLS handshake took too long.',
};

// ---- small tools

const $ = (id) => document.getElementById(id);

function make(tag, props, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(props ?? {})) {
    if (key === 'class') node.className = value;
    else if (key === 'data') Object.assign(node.dataset, value);
    else if (key in node) node[key] = value;
    else node.setAttribute(key, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

function draw(tag, attributes, ...children) {
  const node = document.createElementNS('http://www.w3.org/2000/svg', tag);
  for (const [key, value] of Object.entries(attributes ?? {})) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

const sign = (state) =>
  draw('svg', { viewBox: '0 0 16 16', 'aria-hidden': 'true' }, draw('path', { d: SIGNS[state] }));
const tag = (state, word) => make('span', { class: 'tag', data: { state } }, sign(state), word);
const swatch = (color) => {
  const node = make('i');
  node.style.background = `var(${color})`;
  return node;
};

function set(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

// Replaces what a node holds, but only if `what` it is made from has changed since.
function refill(node, what, fill) {
  const made = JSON.stringify(what);
  if (node.made === made) return;
  node.made = made;
  node.replaceChildren(...[fill()].flat().filter(Boolean));
}

// Lets `parent` have one child for each item, and moves only what has to move.
function sync(parent, items, keyOf, create, update) {
  const old = parent.children_ ?? new Map();
  const now = new Map(items.map((item, at) => [keyOf(item, at), item]));
  for (const [key, node] of old) if (!now.has(key)) node.remove();
  const nodes = new Map();
  let at = parent.firstChild;
  for (const [key, item] of now) {
    const node = old.get(key) ?? create(item);
    update?.(node, item);
    if (node === at) at = at.nextSibling;
    else parent.insertBefore(node, at);
    nodes.set(key, node);
  }
  parent.children_ = nodes;
}

const INVISIBLE =
  /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb]|[\u{e0000}-\u{e007f}]/gu;

// Somebody else's text, with what would be invisible, or turn the text around, made visible.
function plain(text) {
  return String(text ?? '').replace(INVISIBLE, (it) => {
    const code = it.codePointAt(0);
    return code < 32
      ? String.fromCharCode(0x2400 + code)
      : `‹U+${code.toString(16).toUpperCase().padStart(4, '0')}›`;
  });
}

const grouped = new Intl.NumberFormat('en');
const count = (number) => grouped.format(number ?? 0);
const partOf = ([taken, limit], format = count) =>
  limit ? `${format(taken)} of ${format(limit)}` : format(taken);
const few = (number, one, more) => `${count(number)} ${number === 1 ? one : more}`;

function bytes(number) {
  for (const unit of ['B', 'kB', 'MB', 'GB']) {
    if (number < 1000 || unit === 'GB')
      return `${number < 10 && unit !== 'B' ? number.toFixed(1) : Math.round(number)} ${unit}`;
    number /= 1000;
  }
}

function took(ms) {
  if (ms === null || ms === undefined) return '–';
  if (ms < 10) return `${ms.toFixed(1)} ms`;
  if (ms < 999.5) return `${Math.round(ms)} ms`;
  if (ms < 60000) return `${(ms / 1000).toFixed(2)} s`;
  return age(ms);
}

function age(ms) {
  const seconds = Math.max(0, Math.floor(ms / 1000));
  if (seconds < 60) return `${seconds} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours} h ${minutes % 60} min` : `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

const clockOf = (options) => new Intl.DateTimeFormat('en-GB', options);
const withSeconds = clockOf({ hour: '2-digit', minute: '2-digit', second: '2-digit' });
const withMinutes = clockOf({ hour: '2-digit', minute: '2-digit' });
const withDay = clockOf({
  day: 'numeric',
  month: 'short',
  hour: '2-digit',
  minute: '2-digit',
  second: '2-digit',
});
const sum = (numbers) => numbers.reduce((all, number) => all + (number || 0), 0);

// ---- what the reader has chosen; it stands in the address, so that it can be shared

const view = { app: '', outcome: '', kind: '', q: '', span: '5m' };
const PRESET = { ...view };

function readHash() {
  const hash = location.hash.slice(1);
  if (hash && !hash.includes('=')) return;
  const told = new URLSearchParams(hash);
  for (const key of Object.keys(view)) choose(key, told.get(key) ?? PRESET[key], false);
}

function choose(key, value, isNew = true) {
  if (key === 'span' && !SPANS.includes(value)) value = PRESET.span;
  const changed = view[key] !== value;
  view[key] = value;
  for (const field of document.querySelectorAll(`[data-filter=${key}]`)) {
    if (field.options && ![...field.options].some((option) => option.value === value))
      field.append(make('option', { value }, plain(value)));
    if (field.value !== value) field.value = value;
    field.classList.toggle('on', value !== '');
  }
  for (const button of document.querySelectorAll('#spans button'))
    button.setAttribute('aria-pressed', String(button.value === view.span));
  if (!changed) return;
  if (key === 'app') load(value || null);
  if (key !== 'span') rebuild();
  if (isNew) {
    const said = new URLSearchParams(Object.entries(view).filter(([name, it]) => it !== PRESET[name]));
    history.replaceState(null, '', said.size ? `#${said}` : location.pathname + location.search);
  }
  render();
}

window.addEventListener('hashchange', readHash);
for (const field of document.querySelectorAll('[data-filter]'))
  field.addEventListener('input', () => choose(field.dataset.filter, field.value));
$('filters').addEventListener('submit', (event) => event.preventDefault());
