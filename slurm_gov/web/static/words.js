// How the page says things. Everything that comes from users goes through lit-html as text, never as markup;
// what cannot be seen (control and direction marks) is made visible here.

export const REASONS = {
  starts_now: "starts now",
  reclaiming: "taking back",
  preempting_within_team: "preempting in its team",
  waits_for_nodes: "waits for nodes",
  team_at_limit: "team at its limit",
  nothing_to_borrow: "nothing to borrow",
  borrow_does_not_fit: "does not fit what is idle",
  not_started: "Slurm does not start it",
  can_never_run: "can never run",
  not_ready: "not ready",
  no_team: "no team",
  no_pool: "no pool",
};

export const CONDITIONS = {
  free: "free",
  partly: "partly used",
  full: "full",
  draining: "draining",
  drained: "drained",
  down: "down",
  starting: "starting",
  reserved: "reserved",
  off: "powered off",
};
export const SICK = ["down", "drained", "draining", "starting", "reserved"];

const UNSEEN = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Co}\p{Cn}]/gu;

/** A text with what cannot be seen written out: \u001b. */
export function plain(text) {
  return String(text ?? "").toWellFormed?.().replace(UNSEEN, (c) => "\\u" + c.codePointAt(0).toString(16).padStart(4, "0"))
    ?? String(text ?? "").replace(UNSEEN, "\ufffd");
}

export function count(number, one, many = one + "s") {
  return `${number.toLocaleString("en")} ${number === 1 ? one : many}`;
}

/** "23 s", "5 min", "2 h 10 min", "3 d 4 h". */
export function span(seconds) {
  const s = Math.max(0, Math.round(seconds));
  if (s < 120) return `${s} s`;
  const m = Math.floor(s / 60), h = Math.floor(s / 3600), d = Math.floor(s / 86400);
  if (h === 0) return `${m} min`;
  if (d === 0) return m % 60 ? `${h} h ${m % 60} min` : `${h} h`;
  return h % 24 ? `${d} d ${h % 24} h` : `${d} d`;
}

const two = (n) => String(n).padStart(2, "0");

/** "14:20:05" if it is today, else "03-01 14:20". */
export function clock(at, now, seconds = true) {
  const then = new Date(at * 1000), today = new Date(now * 1000);
  const time = `${two(then.getHours())}:${two(then.getMinutes())}`;
  if (then.toDateString() !== today.toDateString()) return `${two(then.getMonth() + 1)}-${two(then.getDate())} ${time}`;
  return seconds ? `${time}:${two(then.getSeconds())}` : time;
}

export function gpus(row) {
  return row.tasks > 1 ? `${row.gpus} × ${row.tasks}` : `${row.gpus}`;
}
