// A pool: a bar of all its capacity (above: who owns it; below: who uses it), its teams, its last hours.

import { html, nothing } from "./lit-html.js";
import { chart } from "./chart.js";
import { count, plain } from "./words.js";

const COLOURS = 8;
const FLOWS = 5;
const TEAMS = 12;
const open = new Set(); // pools of which all teams are shown

/** A team's colour: its place among all teams, so that it is the same everywhere. */
export function colour(doc, team) {
  if (!team) return "none";
  const names = (doc.teamNames ??= [...new Set(Object.values(doc.teams).map((row) => row.team))]);
  const place = names.indexOf(team);
  return place < 0 ? "none" : place % COLOURS;
}

export function pools(doc, now, again) {
  const rows = Object.entries(doc.pools).sort((a, b) => a[1].n - b[1].n);
  if (!rows.length) return html`<p class="empty">The policy has no pools.</p>`;
  return rows.map(([name, row]) => pool(doc, name, row, now, again));
}

function pool(doc, name, row, now, again) {
  const teams = Object.values(doc.teams).filter((one) => one.pool === name);
  const sick = row.total - row.healthy;
  return html`<section class="card pool" aria-label=${`pool ${name}`}>
    <header>
      <h2>${plain(name)}</h2>
      <p class="big"><b>${row.used.toLocaleString("en")}</b> of ${row.total.toLocaleString("en")} GPUs in use</p>
      <ul class="facts">
        <li>${row.free} free</li>
        <li class=${row.borrowed ? "borrowed" : ""}>${row.borrowed} borrowed</li>
        ${row.without_team ? html`<li>${row.without_team} by no team</li>` : nothing}
        ${sick > 0 ? html`<li class="sick">${sick} not healthy</li>` : nothing}
        <li>${count(row.nodes, "node")}</li>
      </ul>
    </header>
    ${bar(doc, name, row)}
    ${flows(row)}
    ${teamTable(doc, name, teams, again)}
    ${chart(name, doc.history?.[name] ?? {}, row, now, doc.history_step)}
  </section>`;
}

function bar(doc, name, row) {
  if (!row.segments.length) return html`<p class="empty">No node has GPUs of this pool.</p>`;
  const owners = [];
  for (const [use, owner, user, gpus] of row.segments) {
    if (owners.at(-1)?.owner !== owner) owners.push({ owner, gpus: 0, parts: [] });
    owners.at(-1).gpus += gpus;
    owners.at(-1).parts.push({ use, user, gpus });
  }
  return html`<div class="bar" role="img" aria-label=${spoken(row)}>
    ${owners.map(({ owner, gpus, parts }) => html`<div class="owner" .style=${`flex-grow:${gpus}`}>
      <div class="tag c-${colour(doc, owner)}" title=${`${owner ? plain(owner) : "not allocated"}: ${gpus} GPUs`}>
        <span>${owner ? plain(owner) : "not allocated"} <b>${gpus}</b></span></div>
      <div class="uses">${parts.map((part) => segment(doc, owner, part))}</div>
    </div>`)}
  </div>`;
}

const USE = { within: "used by its owner", lent: "lent", free: "free", away: "not healthy", missing: "promised, but not there" };
const MARK = { free: "", away: "✕", missing: "?" };

function segment(doc, owner, { use, user, gpus }) {
  const held = use === "within" || use === "lent";
  const who = user ? plain(user) : "no team";
  const says = `${gpus} ${USE[use]}${use === "lent" ? ` to ${who}` : ""}`;
  return html`<div class="use ${use} c-${held ? colour(doc, user) : "none"}" title=${`${owner ? plain(owner) : "not allocated"}: ${says}`}
    .style=${`flex-grow:${gpus}`}><span>${use === "lent" ? html`<i>${who} </i>` : (MARK[use] ?? "")}<b>${gpus}</b></span></div>`;
}

/** The bar for those who do not see it. */
function spoken(row) {
  return row.segments.map(([use, owner, user, gpus]) =>
    `${owner ? plain(owner) : "not allocated"}: ${gpus} ${USE[use]}${use === "lent" ? ` to ${user ? plain(user) : "no team"}` : ""}`).join("; ");
}

/** Who lends to whom, in words, the largest lender first. */
function flows(row) {
  const lenders = new Map();
  for (const [use, owner, user, gpus] of row.segments) {
    if (use === "lent") lenders.set(owner, [...(lenders.get(owner) ?? []), { user, gpus }]);
  }
  const size = (parts) => parts.reduce((sum, part) => sum + part.gpus, 0);
  const found = [...lenders].sort((a, b) => size(b[1]) - size(a[1]));
  const some = (parts) => [...parts].sort((a, b) => b.gpus - a.gpus);
  return html`<div class="flows">
    ${found.length ? html`<ul>${found.slice(0, FLOWS).map(([owner, parts]) => html`<li>
        ${owner ? html`<b>${plain(owner)}</b> lends` : "not allocated, and used:"} ${some(parts).slice(0, FLOWS).map(({ user, gpus }, i) =>
          html`${i ? ", " : ""}<b>${gpus}</b> ${owner ? "to" : "by"} ${user ? plain(user) : "jobs without a team"}`)}${parts.length > FLOWS ? ` and ${parts.length - FLOWS} more` : ""}</li>`)}
        ${found.length > FLOWS ? html`<li>and ${found.length - FLOWS} more lenders</li>` : nothing}</ul>`
      : html`<p>Nothing is lent.</p>`}
    <ul class="legend" aria-hidden="true">
      <li><i class="use within c-0"></i>within quota</li><li><i class="use lent c-0"></i>borrowed</li>
      <li><i class="use free"></i>free</li>
      ${row.segments.some(([use]) => use === "away") ? html`<li><i class="use away"></i>not healthy</li>` : nothing}
      ${row.segments.some(([use]) => use === "missing") ? html`<li><i class="use missing"></i>promised, not there</li>` : nothing}
    </ul></div>`;
}

function teamTable(doc, pool, teams, again) {
  const live = teams.filter((one) => one.quota || one.used || one.waiting);
  if (!live.length) return nothing;
  const most = Math.max(1, ...live.map((one) => Math.max(one.quota, one.used)));
  const busy = [...live].sort((a, b) => b.used + b.waiting_gpus - (a.used + a.waiting_gpus) || (a.team < b.team ? -1 : 1));
  const chosen = new Set(open.has(pool) ? busy : busy.slice(0, TEAMS));
  const rows = live.filter((one) => chosen.has(one));
  const other = doc.others[pool];
  return html`<div class="scroll" tabindex="0" role="region" aria-label=${`teams of ${pool}`}><table class="teams">
    <thead><tr><th scope="col">team</th><th scope="col" class="wide"><span class="unseen">use and quota</span></th>
      <th scope="col" class="n">used</th><th scope="col" class="n">quota</th><th scope="col" class="n">borrowed</th>
      <th scope="col" class="n opt">lent</th><th scope="col" class="n opt2" title="what Slurm lets it hold now (GrpTRES)">cap</th>
      <th scope="col" class="n opt">running</th><th scope="col" class="n">waiting</th></tr></thead>
    <tbody>${rows.map((one) => html`<tr>
      <th scope="row"><i class="swatch c-${colour(doc, one.team)}"></i>${plain(one.team)}</th>
      <td class="wide">${meter(doc, one, most)}</td>
      <td class="n">${one.used}</td><td class="n">${one.quota}</td>
      <td class="n ${one.borrowed ? "borrowed" : "zero"}">${one.borrowed}</td>
      <td class="n opt ${one.lent ? "" : "zero"}">${one.lent}</td>
      <td class="n opt2">${one.cap ?? "none"}${one.cap !== one.planned_cap ? html` <span class="to">→ ${one.planned_cap}</span>` : nothing}</td>
      <td class="n opt ${one.running ? "" : "zero"}">${one.running}</td>
      <td class="n ${one.waiting ? "waits" : "zero"}">${one.waiting}${one.waiting ? html` <small>(${one.waiting_gpus.toLocaleString("en")} GPUs)</small>` : nothing}</td>
    </tr>`)}
    ${other ? html`<tr class="other"><th scope="row"><i class="swatch c-none"></i>(no team)</th><td class="wide"></td>
      <td class="n">${other.used}</td><td></td><td></td><td class="opt"></td><td class="opt2"></td><td class="n opt">${other.running}</td><td class="n">${other.waiting}</td></tr>` : nothing}
    </tbody></table>
    ${live.length > TEAMS ? html`<button type="button" @click=${() => { open.has(pool) ? open.delete(pool) : open.add(pool); again(); }}>
      ${open.has(pool) ? "only the busiest" : `all ${live.length} teams`}</button>` : nothing}</div>`;
}

function meter(doc, one, most) {
  const part = (gpus) => `width:${(100 * gpus) / most}%`;
  const within = Math.min(one.used, one.quota);
  return html`<div class="meter" aria-hidden="true"><i class="quota" .style=${part(one.quota)}></i>
    <span class="fill"><i class="use within c-${colour(doc, one.team)}" .style=${part(within)}></i><i
      class="use lent c-${colour(doc, one.team)}" .style=${part(one.borrowed)}></i></span></div>`;
}
