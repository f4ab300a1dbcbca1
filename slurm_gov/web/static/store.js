// What the page knows: the document that slurm-govd streams, kept up to date by merge patches (RFC 7396), and how
// old it is.

const DEAD = 12; // seconds without a sign of life (the server gives one every 5)

export const store = {
  doc: null, // the document; null until the first has come
  seen: 0, // when the governor last tried to look at Slurm, by its clock
  ahead: 0, // its clock less ours, in seconds
  heard: 0, // when it was last heard, by our clock
  opened: Date.now() / 1000,
};

/** The time by the server's clock, in seconds. */
export const now = () => Date.now() / 1000 + store.ahead;

export function merge(target, patch) {
  for (const [key, value] of Object.entries(patch)) {
    if (value === null) delete target[key];
    else if (typeof value === "object" && !Array.isArray(value)) {
      if (typeof target[key] !== "object" || Array.isArray(target[key])) target[key] = {};
      merge(target[key], value);
    } else target[key] = value;
  }
  return target;
}

/** What is wrong with what is shown: null, or {level, text}. */
export function trouble() {
  const here = Date.now() / 1000;
  const cluster = store.doc?.cluster;
  const silent = here - (store.heard || store.opened);
  if (silent > DEAD) return { level: "bad", kind: "unreachable", for: silent };
  if (!store.doc) return { level: "wait", kind: "starting" };
  if (cluster?.silent_since) return { level: "bad", kind: "slurm", for: now() - cluster.silent_since, error: cluster.slurm_error };
  const idle = now() - store.seen;
  if (store.seen && idle > Math.max(30, 10 * (cluster?.interval ?? 2))) return { level: "bad", kind: "stuck", for: idle };
  if (cluster?.acting_failed) return { level: "warn", kind: "acting", error: cluster.acting_failed };
  return null;
}

/** Listen for as long as the page is open; changed() is called after every event. */
export function listen(changed) {
  let source = null;
  const hear = (event) => {
    const data = JSON.parse(event.data);
    store.heard = Date.now() / 1000;
    store.ahead = data.now - store.heard;
    store.seen = data.seen;
    if (data.document) store.doc = merge({}, data.document).cluster ? data.document : null;
    if (data.patch && store.doc) merge(store.doc, data.patch);
    if (store.doc?.history) forget(store.doc);
    changed();
  };
  const open = () => {
    source?.close();
    source = new EventSource("api/v1/stream");
    for (const kind of ["all", "change", "beat", "end"]) source.addEventListener(kind, hear);
    // The browser tries again by itself after a lost connection, but not after an answer such as 503.
    source.onerror = () => {
      changed();
      if (source.readyState === EventSource.CLOSED) setTimeout(open, 3000);
    };
  };
  open();
  // A connection can be dead without an error: when nothing is heard for long, begin anew.
  setInterval(() => {
    if (Date.now() / 1000 - (store.heard || store.opened) > 3 * DEAD) {
      store.opened = Date.now() / 1000;
      open();
    }
  }, 5000);
  window.addEventListener("pagehide", () => source?.close());
  window.addEventListener("pageshow", (event) => event.persisted && open());
}

function forget(doc) {
  const oldest = now() - 6 * 3600;
  for (const samples of Object.values(doc.history))
    for (const at of Object.keys(samples)) {
      if (+at >= oldest) break;
      delete samples[at];
    }
}
