"use strict";
// Reads /readyz, /metrics and /console/data every few seconds and draws them. What comes from the node becomes text
// nodes and attributes, never markup. The token stays in this closure: it is written nowhere.

(() => {
  const EVERY_MS = 5000;
  const KEPT = 61; // five minutes
  const SMOOTH = 3; // samples that a rate is taken over
  const MINUTE = 13; // samples
  const SVG = "http://www.w3.org/2000/svg";

  const history = []; // of what `counted` gives
  let token = "";
  let timer = 0;
  let asking = 0;

  const byId = (id) => document.getElementById(id);

  /** An element with attributes and children; a child that is no node is a text. */
  function element(name, attributes = {}, ...children) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) {
      if (value === true) made.setAttribute(key, "");
      else if (value !== false && value !== undefined && value !== "") made.setAttribute(key, value);
    }
    made.append(...children.map((one) => (one instanceof Node ? one : document.createTextNode(String(one)))));
    return made;
  }

  const badge = (text, kind) => element("span", { class: `badge ${kind}` }, text);
  const cell = (content, kind = "") => element("td", { class: kind }, content);
  const number = (text) => cell(text, "number");
  const empty = (text) => element("div", { class: "sheet" }, element("div", { class: "empty" }, text));

  function table(heads, rows) {
    const head = element("tr", {}, ...heads.map(([text, kind]) => element("th", { class: kind, scope: "col" }, text)));
    const body = rows.map((cells) => element("tr", {}, ...cells));
    return element("table", {}, element("thead", {}, head), element("tbody", {}, ...body));
  }

  const sheet = (...children) => element("div", { class: "sheet" }, ...children);

  // --- numbers as people read them ---

  const whole = (value) => Math.round(value).toLocaleString("en");
  const percent = (share) => `${Number((100 * share).toFixed(share < 0.0995 ? 1 : 0))} %`;

  function rate(value) {
    if (value === null) return "–";
    return value >= 100 ? whole(value) : value.toFixed(value >= 10 ? 1 : 2);
  }

  function duration(seconds) {
    if (seconds === null || seconds === undefined) return "–";
    if (seconds >= 0.9995) return `${seconds.toFixed(2)} s`;
    return `${(1000 * seconds).toFixed(seconds >= 0.00995 ? 0 : seconds >= 0.000995 ? 1 : 2)} ms`;
  }

  function bytes(count) {
    if (count === null || count === undefined) return "–";
    const units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let place = 0;
    while (count >= 1024 && place < units.length - 1) { count /= 1024; place += 1; }
    return `${place ? count.toFixed(1) : count} ${units[place]}`;
  }

  const decimal = (value) => (value === null || value === undefined ? "–" : value.toFixed(3));

  // --- what the node says ---

  /** Samples of Prometheus's text form: name, labels, value. */
  function samples(text) {
    const found = [];
    for (const line of text.split("\n")) {
      const parts = /^([a-z_]\w*)(?:\{(.*)\})? (\S+)$/.exec(line);
      if (!parts) continue;
      const labels = {};
      for (const [, key, value] of (parts[2] || "").matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)) {
        labels[key] = value.replace(/\\(.)/g, (_, one) => (one === "n" ? "\n" : one));
      }
      found.push({ name: parts[1], labels, value: Number(parts[3]) });
    }
    return found;
  }

  /** Sums over replicas by one label. */
  function summed(found, name, key, keep = () => true) {
    const sums = new Map();
    for (const one of found) {
      if (one.name !== name || !keep(one.labels)) continue;
      sums.set(one.labels[key] || "", (sums.get(one.labels[key] || "") || 0) + one.value);
    }
    return sums;
  }

  /** A histogram by one label, summed over replicas: counts of each bucket, by bounds in their order, the last Infinity. */
  function buckets(found, name, key) {
    const upTo = new Map();
    for (const one of found) {
      if (one.name !== `${name}_bucket`) continue;
      const bound = one.labels.le === "+Inf" ? Infinity : Number(one.labels.le);
      const counts = upTo.get(one.labels[key]) || new Map();
      upTo.set(one.labels[key], counts.set(bound, (counts.get(bound) || 0) + one.value));
    }
    const bounds = [...new Set([...upTo.values()].flatMap((counts) => [...counts.keys()]))].sort((one, other) => one - other);
    const apart = (counts) => bounds.map((bound, place) => counts.get(bound) - (place ? counts.get(bounds[place - 1]) : 0));
    return { bounds, counts: new Map([...upTo].map(([label, counts]) => [label, apart(counts)])) };
  }

  const CALLS = "tessera_peer_call_seconds";
  const REQUESTS = "tessera_requests_total";

  /** One sample: counts since the processes began, by service or party. `known`: viewers' data came, too. */
  function counted(found, data, at) {
    const requests = summed(found, REQUESTS, "service");
    const times = new Map();
    for (const service of data ? data.services : []) {
      for (const one of service.figures.filter((figure) => !figure.shadow)) {
        const sums = times.get(service.service) || one.times.map(() => 0);
        times.set(service.service, sums.map((count, place) => count + one.times[place]));
      }
    }
    return {
      at, requests, times, known: data !== null,
      failed: summed(found, REQUESTS, "service", (labels) => labels.code !== "OK"),
      batches: summed(found, "tessera_peer_batches_total", "party"),
      unanswered: summed(found, "tessera_peer_failed_total", "party"),
      calls: buckets(found, CALLS, "party").counts,
    };
  }

  async function asked(path, headers = {}) {
    return fetch(path, { headers, cache: "no-store", credentials: "omit", redirect: "error" });
  }

  // --- rates and quantiles of what lies between two samples ---

  function perSecond(kind, key, place = history.length - 1, samples = SMOOTH) {
    const last = history[place];
    const first = history[Math.max(0, place - samples)];
    if (!last || !first || last.at <= first.at) return null;
    const grown = (last[kind].get(key) || 0) - (first[kind].get(key) || 0);
    return grown < 0 ? null : grown / (last.at - first.at); // a process that began anew counts from nothing
  }

  /** Of the last minute; `kind` is `times` or `calls`. */
  function quantile(kind, key, share, bounds, place = history.length - 1) {
    const last = history[place] && history[place][kind].get(key);
    const earlier = history.slice(Math.max(0, place - MINUTE), Math.max(0, place));
    const before = earlier.find((one) => one.known || kind !== "times");
    if (!last || !before) return null;
    const first = before[kind].get(key);
    const counts = last.map((count, bucket) => Math.max(0, count - (first ? first[bucket] : 0)));
    const wanted = share * counts.reduce((sum, one) => sum + one, 0);
    if (!wanted) return null;
    let below = 0;
    for (let bucket = 0; bucket < counts.length; bucket += 1) {
      if (counts[bucket] && below + counts[bucket] >= wanted) {
        const low = bucket ? bounds[bucket - 1] : 0;
        const high = bucket < bounds.length ? bounds[bucket] : bounds[bounds.length - 1];
        return low + ((high - low) * (wanted - below)) / counts[bucket];
      }
      below += counts[bucket];
    }
    return null;
  }

  const over = (value) => history.map((_, place) => value(place));

  function drawn(name, attributes) {
    const made = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
  }

  /** A line of the last five minutes, the newest at the right, from 0 to its highest. */
  function plot([kind, values], label) {
    const width = 300, height = 54, foot = 50;
    const most = Math.max(...values.map((one) => one || 0), 1e-9);
    const size = { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none" };
    const picture = drawn("svg", { class: "plot", role: "img", "aria-label": label, ...size });
    picture.append(drawn("line", { class: "ground", x1: 0, x2: width, y1: foot, y2: foot }));
    const x = (place) => ((KEPT - values.length + place) * width) / (KEPT - 1);
    const y = (value) => foot - (value / most) * (foot - 4);
    const points = values.flatMap((one, place) => (one === null ? [] : [`${x(place).toFixed(1)},${y(one).toFixed(1)}`]));
    picture.append(drawn("polyline", { class: kind, points: points.join(" ") }));
    return picture;
  }

  function tile(name, shown, note, line, label) {
    return element("div", { class: "tile" }, element("span", { class: "name" }, name), element("strong", {}, shown),
      element("span", { class: "note" }, note), plot(line, label));
  }

  // --- sections ---

  function variantRow(variant, figures) {
    const found = figures.find((one) => one.variant === variant.variant && one.shadow === variant.shadow) || {};
    const known = (found.positives || 0) + (found.negatives || 0);
    const name = element("span", {}, variant.variant, variant.shadow ? " " : "",
      ...(variant.shadow ? [badge("shadow", "")] : []));
    return [cell(name), number(percent(variant.weight / 10000)), number(whole(found.answers || 0)), number(whole(known)),
      number(decimal(found.auc)), number(decimal(found.ks)), number(duration(found.seconds_mean)),
      number(duration(found.seconds_p99))];
  }

  function serviceSheet(service, bounds) {
    const name = service.service;
    const title = element("div", { class: "title" }, element("h3", {}, name),
      ...(service.is_default ? [badge("default", "")] : []),
      ...(service.refusal ? [badge("not served", "bad")] : []),
      element("span", { class: "quiet" }, `revision ${service.revision}, app ${service.app}`));
    const failing = perSecond("failed", name);
    const all = perSecond("requests", name);
    const note = all && failing ? `${percent(Math.min(1, failing / all))} failed` : "";
    const rates = over((place) => perSecond("requests", name, place));
    const p50 = over((place) => quantile("times", name, 0.5, bounds, place));
    const p99 = over((place) => quantile("times", name, 0.99, bounds, place));
    const tiles = element("div", { class: "tiles" },
      tile("Requests a second", rate(all), note, ["rate", rates], `requests a second of ${name}`),
      tile("p50 of the last minute, no repeats", duration(p50.at(-1)), "", ["p50", p50], `median of ${name}`),
      tile("p99 of the last minute, no repeats", duration(p99.at(-1)), "", ["p99", p99], `99th percentile of ${name}`));
    const heads = [["Variant"], ["Weight", "number"], ["Answers", "number"], ["Outcomes", "number"], ["AUC", "number"],
      ["KS", "number"], ["Mean in all", "number"], ["p99 in all", "number"]];
    const rows = service.variants.map((one) => variantRow(one, service.figures));
    const previous = service.previous.map((one) => `${one.variant} ${percent(one.weight / 10000)}`).join(", ");
    return element("article", { class: "sheet service" }, title, ...(service.refusal ? [element("p", {}, service.refusal)] : []),
      tiles, table(heads, rows), ...(previous ? [element("p", { class: "quiet" }, `before: ${previous}`)] : []));
  }

  const MODEL_STATES = { READY: "good", FAILED: "bad" };

  function modelRow(model) {
    const ready = model.replicas ? `${model.replicas_ready} of ${model.replicas}` : "–";
    const why = [model.reason, ...model.held_by].filter(Boolean).join("; ");
    return [cell(model.model), cell(model.version), cell(model.role || "–"),
      cell(badge(model.state.toLowerCase(), MODEL_STATES[model.state] || "warn")), number(bytes(model.bytes)),
      number(ready), cell(why || "–", "wide")];
  }

  const BREAKERS = { closed: ["calls pass", "good"], half_open: ["finding out", "warn"], open: ["left alone", "bad"] };

  /** Share of the calls of the last minute. */
  function unanswered(party) {
    const place = history.length - 1;
    const calls = perSecond("batches", party, place, MINUTE);
    const failed = perSecond("unanswered", party, place, MINUTE);
    return calls && failed !== null ? percent(Math.min(1, failed / calls)) : "–";
  }

  function peersShown(found) {
    const parties = [...summed(found, "tessera_peer_batches_total", "party").keys()].sort();
    if (!parties.length) return empty("This party asks no other one.");
    const bounds = buckets(found, CALLS, "party").bounds.filter(Number.isFinite);
    const rows = parties.map((party) => {
      const states = summed(found, "tessera_peer_breaker", "state", (labels) => labels.party === party);
      const state = ["open", "half_open", "closed"].find((one) => states.get(one));
      const [text, kind] = BREAKERS[state] || ["unknown", ""];
      const value = (name) => summed(found, name, "party").get(party) || 0;
      const took = (share) => number(duration(quantile("calls", party, share, bounds)));
      return [cell(party), cell(badge(text, kind)), number(whole(value("tessera_peer_batches_total"))),
        number(rate(perSecond("batches", party))), number(unanswered(party)), took(0.5), took(0.99),
        number(whole(value("tessera_peer_late_total"))), number(whole(value("tessera_peer_queued_rows")))];
    });
    const heads = [["Party"], ["Breaker"], ["Calls", "number"], ["A second", "number"], ["Failed*", "number"],
      ["p50*", "number"], ["p99*", "number"], ["Late requests", "number"], ["Waiting users", "number"]];
    const note = "* of the calls of the last minute, each for one or several requests";
    return element("div", {}, sheet(table(heads, rows)), element("p", { class: "quiet" }, note));
  }

  const LEVELS = { l1: "L1 repeated cases", l2: "L2 in process", l3: "L3 shared" };

  function cachesShown(found) {
    const hits = summed(found, "tessera_cache_hits_total", "level");
    const misses = summed(found, "tessera_cache_misses_total", "level");
    const entries = summed(found, "tessera_cache_entries", "level");
    const rows = Object.entries(LEVELS).filter(([level]) => hits.has(level)).map(([level, name]) => {
      const asked = hits.get(level) + (misses.get(level) || 0);
      const share = asked ? hits.get(level) / asked : 0;
      const shown = element("meter", { min: 0, max: 1, value: share, "aria-label": `share of hits, ${name}` });
      return [cell(name), cell(shown), number(asked ? percent(share) : "–"), number(whole(asked)),
        number(entries.has(level) ? whole(entries.get(level)) : "–")];
    });
    const heads = [["Level"], ["Hits"], ["", "number"], ["Look-ups", "number"], ["Entries", "number"]];
    return rows.length ? sheet(table(heads, rows)) : empty("Nothing is counted yet.");
  }

  function replicasShown(replicas) {
    const sorted = [...replicas].sort((one, other) => one.replica.localeCompare(other.replica));
    const rows = sorted.map((one) => {
      const states = Object.values(one.models);
      const ready = states.filter((state) => state === "READY").length;
      return [cell(one.replica), number(one.revision), number(`${ready} of ${states.length}`),
        number(`${one.age_s.toFixed(1)} s ago`)];
    });
    const heads = [["Replica"], ["State revision", "number"], ["Models ready", "number"], ["Heard", "number"]];
    return rows.length ? sheet(table(heads, rows)) : empty("No replica has reported yet.");
  }

  // --- the page ---

  function showNode(ready, data, found) {
    const build = found.find((one) => one.name === "tessera_build_info");
    const names = [data ? data.party : "", build ? build.labels.version : ""];
    byId("node").textContent = names.filter(Boolean).join(" · ");
    if (data) document.title = `${data.party} – Tessera`;
    const state = byId("state");
    state.textContent = ready.ready ? "ready" : `not ready: ${ready.state}`;
    state.className = `badge ${ready.ready ? (ready.problems.length ? "warn" : "good") : "bad"}`;
    const problems = byId("problems");
    problems.replaceChildren(...ready.problems.map((one) => element("li", {}, one)));
    problems.hidden = !ready.problems.length;
  }

  function showOperators(data, refusal) {
    if (!data) {
      for (const id of ["services", "models"]) byId(id).replaceChildren(empty(refusal));
      return;
    }
    const services = data.services.map((one) => serviceSheet(one, data.bounds_s));
    byId("services").replaceChildren(...(services.length ? services : [empty("No service is online.")]));
    const heads = [["Model"], ["Version"], ["Role"], ["State"], ["Memory", "number"], ["Replicas ready", "number"],
      ["Needed by, or why not"]];
    const pool = `${bytes(data.pool.bytes)} of ${bytes(data.pool.max_bytes)} in use`;
    byId("models").replaceChildren(data.models.length ? sheet(table(heads, data.models.map(modelRow)))
      : empty("No model is loaded."), element("p", { class: "quiet" }, pool));
  }

  async function refresh() {
    const headers = token ? { authorization: `Bearer ${token}` } : {};
    asking += 1;
    const own = asking;
    const [ready, metrics, data] = await Promise.all([asked("/readyz"), asked("/metrics"), asked("/console/data", headers)]);
    const found = samples(await metrics.text());
    const body = await data.json();
    const readiness = await ready.json();
    if (own !== asking) return; // another one has begun, with another token
    const shown = data.ok ? body : null;
    history.push(counted(found, shown, Date.now() / 1000));
    history.splice(0, history.length - KEPT);
    showNode(readiness, shown, found);
    showOperators(shown, data.ok ? "" : token ? `Refused: ${body.error.message}.` : "Enter the token of a viewer above.");
    byId("peers").replaceChildren(peersShown(found));
    byId("caches").replaceChildren(cachesShown(found));
    byId("replicas").replaceChildren(replicasShown(readiness.replicas));
    byId("age").textContent = `as of ${new Date().toLocaleTimeString()}`;
  }

  async function turn() {
    window.clearTimeout(timer);
    try {
      if (!document.hidden) await refresh();
    } catch (error) {
      byId("age").textContent = "the node does not answer";
      byId("state").className = "badge bad";
      byId("state").textContent = "no answer";
    }
    window.clearTimeout(timer);
    timer = window.setTimeout(turn, EVERY_MS);
  }

  byId("access").addEventListener("submit", (event) => {
    event.preventDefault();
    token = byId("token").value.trim();
    byId("token").value = "";
    byId("forget").hidden = !token;
    turn();
  });
  byId("forget").addEventListener("click", () => {
    token = "";
    byId("forget").hidden = true;
    turn();
  });
  document.addEventListener("visibilitychange", () => { if (!document.hidden) turn(); });
  turn();
})();
