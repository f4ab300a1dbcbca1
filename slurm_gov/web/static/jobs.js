// Jobs: those being preempted, those that wait and why; and any job, found by its id, name, user or team.

import { html, nothing } from "./lit-html.js";
import { colour } from "./pools.js";
import { clock, count, gpus, plain, REASONS, span } from "./words.js";

const search = { text: "", reason: "", found: null, error: "", timer: 0, turn: 0 };
const SHOWN = 50;

export function preemptions(doc, now) {
  const rows = Object.entries(doc.preemptions).sort((a, b) => last(a[1]) - last(b[1]));
  if (!rows.length) return nothing;
  return html`<section class="card leaving" aria-label="jobs being preempted"><h2>Leaving <small>${count(rows.length, "job")}</small></h2>
    <ol class="rows scroll" tabindex="0" aria-label="jobs">${rows.slice(0, SHOWN).map(([job, row]) => html`<li>
      <p><b>${job}</b> of <b>${who(doc, row.team)}</b>, ${plain(row.user)}, ${count(row.gpus, "GPU")},
        for ${plain(row.beneficiary)} of <b>${who(doc, row.beneficiary_team)}</b>: <span class="left">${phase(row, now)}</span></p>
      <p class="why">${plain(row.reason)}</p></li>`)}</ol></section>`;
}

/** Who leaves first stands first; who stays after all stands last. */
function last(row) {
  return row.phase === "spared" ? Number.MAX_VALUE : (row.deadline ?? Number.MAX_SAFE_INTEGER);
}

function phase(row, now) {
  const left = row.deadline === undefined ? 0 : row.deadline - now;
  if (row.phase === "next_cycle") return "will be signalled";
  if (row.phase === "spared") return "not needed any more: it stays";
  return left > 0 && row.phase === "grace" ? `${span(left)} left, then ${row.then}` : `its grace period is over: ${row.then}`;
}

function who(doc, team) {
  return team ? html`<i class="swatch c-${colour(doc, team)}"></i>${plain(team)}` : "no team";
}

export function waiting(doc, now, again) {
  const reasons = Object.entries(doc.reasons).sort((a, b) => b[1][0] - a[1][0]);
  const all = Object.entries(doc.waiting).sort((a, b) => a[1].n - b[1].n).map(([job, row]) => ({ job, ...row }));
  const asked = search.text || search.reason;
  const rows = asked ? (search.found?.jobs ?? []) : all;
  const total = asked ? (search.found?.total ?? 0) : doc.cluster.waiting_jobs;
  const ask = (text, reason) => {
    search.text = text;
    search.reason = reason;
    clearTimeout(search.timer);
    search.timer = setTimeout(() => find(again), text ? 250 : 0);
    again();
  };
  return html`<section class="card waiting" aria-label="waiting jobs">
    <header><h2>Waiting <small>${count(doc.cluster.waiting_jobs, "job")}</small></h2>
      <search><label><span class="unseen">find a job</span>
        <input type="search" placeholder="find a job, user, team …" autocomplete="off" spellcheck="false"
          .value=${search.text} @input=${(event) => ask(event.target.value, "")}></label></search></header>
    ${reasons.length ? html`<ul class="chips" aria-label="why they wait">${reasons.map(([reason, [jobs, wants]]) => html`<li>
      <button type="button" class="chip r-${reason}" aria-pressed=${search.reason === reason} title=${`${count(wants, "GPU")} asked for`}
        @click=${() => ask("", search.reason === reason ? "" : reason)}><b>${jobs.toLocaleString("en")}</b> ${REASONS[reason] ?? reason}</button></li>`)}</ul>` : nothing}
    ${asked ? html`<p class="found" role="status">${search.error || (search.found ? `${count(total, "job")} found` : "looking …")}
      <button type="button" @click=${() => ask("", "")}>show all that wait</button></p>` : nothing}
    ${rows.length ? html`<ol class="rows scroll" tabindex="0" aria-label="jobs">${rows.slice(0, 2 * SHOWN).map((row) => job(doc, row, now))}</ol>`
      : asked ? nothing : html`<p class="empty">No job waits.</p>`}
    ${total > rows.length && rows.length ? html`<p class="more">the first ${rows.length} of ${total.toLocaleString("en")}</p>` : nothing}
  </section>`;
}

async function find(again) {
  const turn = ++search.turn;
  search.error = "";
  if (search.text || search.reason) {
    const query = new URLSearchParams({ limit: 2 * SHOWN });
    if (search.text) query.set("search", search.text.slice(0, 200));
    if (search.reason) query.set("reason", search.reason);
    try {
      const answer = await fetch(`api/v1/jobs?${query}`);
      if (!answer.ok) throw new Error(answer.statusText);
      const found = await answer.json();
      if (turn !== search.turn) return;
      search.found = found;
    } catch (error) {
      if (turn !== search.turn) return;
      search.found = null;
      search.error = `slurm-govd does not answer: ${error.message}`;
    }
  } else search.found = null;
  again();
}

/** One job: a row of the document, or one of the read API's. */
function job(doc, row, now) {
  const runs = row.nodes instanceof Array;
  const since = row.since ?? row.submitted;
  const expected = row.expected ?? row.expected_start;
  return html`<li class=${runs ? "runs" : ""}>
    <div class="line"><span class="place" title="its place in line">${row.place ?? ""}</span>
      <b class="id">${row.job}</b> <span class="name">${plain(row.name)}</span>
      <span class="size">${gpus(row)} <small>${row.gpus === 1 && !row.tasks ? "GPU" : "GPUs"}</small></span></div>
    <div class="line meta"><span>${row.pool ? plain(row.pool) : "no pool"}</span><span>${who(doc, row.team)}</span><span>${plain(row.user)}</span>
      <span>${plain(row.priority_class)}</span><span>${runs ? `runs for ${span(now - row.since)}` : `waits ${span(now - since)}`}</span>
      ${expected ? html`<span class="expected" title="Slurm's own estimate">${expected > now ? `start expected ${clock(expected, now, false)}` : "start expected now"}</span>` : nothing}</div>
    ${runs ? html`<p class="why">${row.borrowed ? `${row.borrowed} of its ${row.gpus} GPUs are borrowed; ` : ""}on ${plain(row.nodes.slice(0, 8).join(", "))}${row.nodes.length > 8 ? ` and ${row.nodes.length - 8} more` : ""}</p>`
      : html`<p class="why"><span class="reason r-${row.reason}">${REASONS[row.reason] ?? row.reason}</span> ${plain(row.why)}</p>`}
  </li>`;
}
