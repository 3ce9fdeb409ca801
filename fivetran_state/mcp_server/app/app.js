"use strict";

// Text from outside becomes text on the page, never markup: there is no innerHTML here, and the
// document's policy forbids it. Everything else goes through the host, by messages.

const PROTOCOL = "2026-01-26";
const MAX_WAIT_SECONDS = 10;
const PAUSE_MS = 1000;
const RETRY_MS = 5000;
const MAX_TEXT = 5000;
const MAX_ITEMS = 200;

const words = JSON.parse(document.getElementById("words").textContent);
const HIDDEN = new RegExp(words.hidden, "gu");
const places = Object.fromEntries(
  ["title", "message", "view", "actions", "plan", "plan-title", "plan-message", "plan-view", "plan-actions"]
    .map((id) => [id, document.getElementById(id)]),
);

// The host

const answers = new Map();
let lastId = 0;
let lastError = 0;
let capabilities = {};
let given = {};
let turn = 0; // Each result begins a turn. What an earlier one still waits for is dropped.

function send(message) {
  // A sandbox's origin is opaque, so no other target can be named. Only the host embeds this.
  parent.postMessage({ jsonrpc: "2.0", ...message }, "*");
}

function request(method, params) {
  return new Promise((resolve, reject) => {
    lastId += 1;
    answers.set(lastId, { resolve, reject });
    send({ id: lastId, method, params });
  });
}

async function callTool(name, args) {
  return parsed(await request("tools/call", { name, arguments: args }));
}

const notified = new Map([
  ["ui/notifications/tool-input", (params) => { given = isObject(params.arguments) ? params.arguments : {}; }],
  ["ui/notifications/tool-result", (params) => show(parsed(params))],
  ["ui/notifications/tool-cancelled", () => { turn += 1; say(places.message, "The call was cancelled."); }],
  ["ui/notifications/host-context-changed", adapt],
]);

addEventListener("message", ({ source, data }) => {
  if (source !== parent || !isObject(data) || data.jsonrpc !== "2.0") return;
  if (typeof data.method !== "string") {
    const answer = answers.get(data.id);
    answers.delete(data.id);
    if (data.error) answer?.reject(data.error);
    else answer?.resolve(data.result);
  } else if (data.id === undefined) {
    notified.get(data.method)?.(isObject(data.params) ? data.params : {});
  } else if (data.method === "ping" || data.method === "ui/resource-teardown") {
    if (data.method !== "ping") turn += 1;
    send({ id: data.id, result: {} });
  } else {
    send({ id: data.id, error: { code: -32601, message: "Method not found" } });
  }
});

function adapt(context) {
  if (context.theme === "light" || context.theme === "dark") {
    document.documentElement.style.colorScheme = context.theme;
  }
}

async function begin() {
  const host = await request("ui/initialize", {
    appInfo: { name: "fivetran-state", version: words.version },
    appCapabilities: {},
    protocolVersion: PROTOCOL,
  });
  capabilities = host.hostCapabilities ?? {};
  adapt(host.hostContext ?? {});
  send({ method: "ui/notifications/initialized", params: {} });
  new ResizeObserver(() => {
    const height = Math.ceil(document.documentElement.getBoundingClientRect().height);
    send({ method: "ui/notifications/size-changed", params: { height } });
  }).observe(document.documentElement);
}

// Results

function isObject(value) {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function items(value) {
  return (Array.isArray(value) ? value : []).filter(isObject);
}

function parsed(result) {
  // The text has the same, and is all there is of an error.
  if (isObject(result?.structuredContent)) return { content: result.structuredContent, isError: result.isError === true };
  const text = (Array.isArray(result?.content) ? result.content : []).find((each) => each?.type === "text")?.text ?? "";
  try {
    const content = JSON.parse(text);
    if (isObject(content)) return { content, isError: result.isError === true };
  } catch {
    // It is a sentence.
  }
  return { content: { code: "no_result", message: String(text) || "The host sent no result." }, isError: true };
}

function kindOf({ content, isError }) {
  if (isError) return "error";
  if (Array.isArray(content.entries)) return "time line";
  if (content.status === "planned") return Array.isArray(content.kinds) ? "group plan" : "plan";
  return Array.isArray(content.updates) ? "group" : "update";
}

const TITLES = new Map([
  ["error", "It did not work"],
  ["time line", "Time line"],
  ["plan", "Plan"],
  ["group plan", "Plan for a group"],
  ["update", "Update"],
  ["group", "Group of updates"],
]);

// Nodes

function element(name, className, ...children) {
  const made = document.createElement(name);
  if (className) made.className = className;
  made.append(...children);
  return made;
}

function shown(text) {
  const whole = ["string", "number", "boolean"].includes(typeof text) ? String(text) : "";
  const cut = whole.length > MAX_TEXT ? `${whole.slice(0, MAX_TEXT)}…` : whole;
  return cut.replace(HIDDEN, escaped);
}

function escaped(found) {
  return found.split("").map((unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`).join("");
}

function outside(text) {
  const made = element("bdo", "", shown(text));
  made.dir = "ltr";
  return made;
}

function code(text) {
  return element("code", "", outside(text));
}

function filled(part, values) {
  for (const slot of part.querySelectorAll("[data-slot]")) slot.textContent = shown(values[slot.dataset.slot]);
  return part;
}

function say(place, text, status) {
  place.replaceChildren();
  if (typeof status === "string" && /^[a-z_]{1,20}$/.test(status)) {
    place.append(element("span", `status status-${status}`, status.replaceAll("_", " ")), " ");
  }
  place.append(outside(text));
}

function moment(text) {
  const whole = shown(text);
  return `${whole.slice(0, 10)} ${whole.slice(11, 19)} UTC`;
}

function facts(pairs) {
  const list = element("dl", "facts");
  for (const [name, value] of pairs) {
    if (value !== undefined && value !== null) list.append(element("dt", "", name), element("dd", "", value instanceof Node ? value : outside(value)));
  }
  return list;
}

function section(title, ...children) {
  return element("section", "", element("h2", "", title), ...children);
}

function button(text, act) {
  const made = element("button", "", text);
  made.type = "button";
  made.addEventListener("click", (event) => {
    // The second click of two may have been for what stood here before.
    if (event.isTrusted && event.detail < 2) act(made);
  });
  return made;
}

// Views

function changes(listed, total) {
  const list = document.getElementById("changes").content.querySelector("ul").cloneNode(false);
  const found = items(listed).slice(0, MAX_ITEMS);
  for (const change of found) {
    const op = ["add", "remove"].includes(change.op) ? change.op : "replace";
    const line = document.getElementById("changes").content.querySelector(`.op-${op}`).cloneNode(true);
    list.append(filled(line, { ...change, path: change.path || "(everything)" }));
  }
  const more = Number(total) - found.length;
  return [list, more > 0 ? element("p", "more", `… and ${more.toLocaleString("en")} more.`) : ""];
}

function failure(error) {
  const part = filled(document.getElementById("error").content.cloneNode(true), error);
  const heading = part.querySelector("h2");
  lastError += 1;
  heading.id = `error-${lastError}`;
  part.querySelector("section").setAttribute("aria-labelledby", heading.id);
  if (!error.hint) part.querySelector(".hint").remove();
  return part;
}

function steps(content) {
  const list = element("ol", "steps");
  const named = (name) => (Object.hasOwn(words.steps, name) ? words.steps[name] : shown(name));
  for (const step of items(content.steps).slice(0, MAX_ITEMS)) {
    const end = step.error ? `failed (${shown(step.error)})` : "done";
    const took = typeof step.seconds === "number" ? `, in ${step.seconds.toFixed(2)} s` : "";
    list.append(element("li", step.error ? "failed" : "done", `${named(step.name)}: ${end}${took}`));
  }
  if (content.status === "running" && content.phase) {
    const current = element("li", "current", `${named(content.phase)}: now`);
    current.setAttribute("aria-current", "step");
    list.append(current);
  }
  return list.childElementCount ? [section("Steps", list)] : [];
}

function sinceThen(since) {
  const sync = { none: "no sync has run", running: "a sync is running", succeeded: "a sync has succeeded", failed: "a sync has failed" };
  const moved = since.state_moved === true ? ", and the state has moved" : since.state_moved === false ? ", and the state is the same" : "";
  return `${Object.hasOwn(sync, since.sync) ? sync[since.sync] : shown(since.sync)}${moved}`;
}

function ofUpdate(content) {
  const parts = [
    facts([
      ["Connection", content.connection_id],
      ["Update", content.workflow_id],
      ["Part of", content.part_of],
      ["Reason", content.reason],
      ["Asked by", content.asked_by],
      ["Agreed by", content.agreed_by],
      ["Paused for", typeof content.paused_seconds === "number" ? `${content.paused_seconds.toFixed(1)} s` : null],
      ["Since then", isObject(content.since) ? sinceThen(content.since) : null],
    ]),
    ...steps(content),
  ];
  if (isObject(content.error)) parts.push(failure(content.error));
  if (items(content.changes).length) {
    const title = ["running", "proposed"].includes(content.status) ? "What it will change" : "What it changed";
    parts.push(section(title, ...changes(content.changes, content.changes_total)));
  }
  return parts;
}

function ofPlan(content) {
  const found = items(content.changes).length
    ? section("What would change", ...changes(content.changes, content.changes_total))
    : element("p", "", "Nothing would change.");
  return [facts([["Connection", content.connection_id], ["Version", content.version_before]]), found];
}

function member(content) {
  const line = element("li", "", element("h3", "", outside(content.connection_id)));
  if (content.status) {
    const status = element("p");
    say(status, content.message, content.status);
    line.append(status);
  }
  for (const warning of Array.isArray(content.warnings) ? content.warnings : []) line.append(element("p", "", outside(warning)));
  if (isObject(content.error)) line.append(failure(content.error));
  if (items(content.changes).length) line.append(...changes(content.changes, content.changes_total));
  return line;
}

function members(title, listed) {
  const found = items(listed).slice(0, MAX_ITEMS);
  return found.length ? [section(title, element("ul", "cards", ...found.map(member)))] : [];
}

function ofGroupPlan(content) {
  return [
    facts([
      ["Connections", content.total],
      ["Would change", content.changed],
      ["Already so", content.unchanged],
      ["Cannot be changed", content.failed],
      ["Version", content.version],
    ]),
    ...members("Cannot be changed", content.failures),
    ...members("What would change", content.connections),
    content.more > 0 ? element("p", "more", `… and ${Number(content.more).toLocaleString("en")} more connections.`) : "",
  ];
}

function ofGroup(content) {
  const counts = element("ul", "counts");
  for (const [name, count] of Object.entries(isObject(content.counts) ? content.counts : {})) {
    counts.append(element("li", "", `${shown(name.replaceAll("_", " "))}: ${shown(count)}`));
  }
  const parts = [facts([["Group", content.workflow_id], ["Connections", content.total]]), counts];
  if (isObject(content.error)) parts.push(failure(content.error));
  return [...parts, ...members("Updates", content.updates), ...members("Not started", content.not_started)];
}

function ofTimeLine(content) {
  const list = element("ol", "timeline");
  items(content.entries).slice(0, MAX_ITEMS).forEach((entry, index) => list.append(ofEntry(entry, index)));
  const parts = [facts([["Connection", given.connection_id]]), list];
  if (typeof content.next_cursor === "string" && capabilities.serverTools) {
    const older = button("Older ones", async () => {
      older.disabled = true;
      given = { ...given, cursor: content.next_cursor };
      await once(show, "state_history", given);
    });
    parts.push(element("p", "", older));
  }
  return parts;
}

function ofEntry(entry, index) {
  const kind = Object.hasOwn(words.kinds, entry.kind) ? entry.kind : "others";
  const line = element("li", `kind-${kind.replaceAll(" ", "-")}`, element("h2", "", moment(entry.at)));
  line.append(facts([
    ["Moved by", words.kinds[kind]],
    ["Update", entry.workflow_id],
    ["End", entry.status],
    ["Error", entry.error],
    ["Change", entry.change],
    ["Reason", entry.reason],
  ]));
  if (items(entry.changes).length) line.append(...changes(entry.changes, entry.changes_total));
  const isPast = index > 0 || "cursor" in given || "until" in given;
  if (isPast && typeof entry.version === "string" && typeof given.connection_id === "string" && mayChange()) {
    const back = button("Put this state back…", () => plan(
      "What would change if this state is put back",
      "update_state",
      { connection_id: given.connection_id, restore_from: entry.version },
      "expected_version",
    ));
    back.setAttribute("aria-label", `Put this state back… (${moment(entry.at)})`);
    line.append(element("p", "", back));
  }
  return line;
}

const VIEWS = new Map([
  ["error", ({ content }) => [failure(content)]],
  ["time line", ({ content }) => ofTimeLine(content)],
  ["plan", ({ content }) => ofPlan(content)],
  ["group plan", ({ content }) => ofGroupPlan(content)],
  ["update", ({ content }) => ofUpdate(content)],
  ["group", ({ content }) => ofGroup(content)],
]);

function draw(answer) {
  const kind = kindOf(answer);
  places.title.textContent = TITLES.get(kind);
  say(places.message, answer.isError ? "" : answer.content.message, answer.isError ? null : answer.content.status);
  places.view.replaceChildren(...VIEWS.get(kind)(answer));
  places.actions.replaceChildren(...actions(kind, answer.content));
}

function actions(kind, content) {
  if (!mayChange() || typeof content.workflow_id !== "string") return [];
  const restore = { restore_from: content.workflow_id };
  if (kind === "update" && content.status === "updated" && typeof content.connection_id === "string") {
    return [button("Undo…", () => plan("What an undo would change", "update_state", { connection_id: content.connection_id, ...restore }))];
  }
  if (kind === "group" && ["updated", "partly_updated"].includes(content.status)) {
    return [button("Undo…", () => plan("What an undo would change", "update_states", restore))];
  }
  return [];
}

function mayChange() {
  return words.writes && Boolean(capabilities.serverTools);
}

// What runs, and what a person does

function show(answer) {
  turn += 1;
  places.plan.hidden = true;
  draw(answer);
  follow(answer, turn, 1);
}

// It asks often at first, and less often of an update that takes long.
async function follow(answer, mine, seconds) {
  const { content } = answer;
  const isRunning = !answer.isError && content.status === "running" && typeof content.workflow_id === "string";
  if (!isRunning || !capabilities.serverTools) return;
  await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
  if (mine !== turn) return;
  let next;
  try {
    next = await callTool("workflow_status", { workflow_id: content.workflow_id, wait_seconds: seconds });
  } catch {
    // The server may be starting again. The update goes on by itself.
    if (mine !== turn) return;
    say(places.message, "The server cannot be reached. Trying again.", "running");
    await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
    return follow(answer, mine, seconds);
  }
  if (mine !== turn) return;
  draw(next);
  return follow(next, mine, Math.min(seconds + 1, MAX_WAIT_SECONDS));
}

async function once(use, tool, args) {
  const mine = turn;
  let answer;
  try {
    answer = await callTool(tool, args);
  } catch (error) {
    answer = { content: { code: "not_called", message: `The host did not make the call: ${shown(error?.message)}` }, isError: true };
  }
  if (mine === turn) use(answer);
}

// An undo is planned first. A person then agrees to exactly the version that the plan shows.
async function plan(title, tool, change) {
  turn += 1;
  places["plan-title"].textContent = title;
  say(places["plan-message"], "Asking for the plan.");
  places["plan-view"].replaceChildren();
  places["plan-actions"].replaceChildren();
  places.plan.hidden = false;
  places["plan-title"].focus();
  await once((answer) => drawPlan(answer, tool, change), tool, { ...change, dry_run: true });
}

function drawPlan(answer, tool, change) {
  const { content } = answer;
  const kind = kindOf(answer);
  say(places["plan-message"], answer.isError ? "" : content.message, answer.isError ? null : content.status);
  places["plan-view"].replaceChildren(...VIEWS.get(kind)(answer));
  const version = kind === "plan" ? content.version_before : content.version;
  if (!["plan", "group plan"].includes(kind) || typeof version !== "string" || !(content.changes_total > 0 || content.changed > 0)) return;
  if (!isShownInFull(kind, content)) {
    places["plan-actions"].append("It is too large to be shown here in full. Ask the assistant to make it.");
    return;
  }
  const agree = button("Make exactly this change", () => {
    agree.disabled = true;
    const args = { ...change, expected_version: version, wait_seconds: 0 };
    tell(tool, args);
    once(show, tool, args);
  });
  agree.className = "main";
  places["plan-actions"].append(agree);
}

function isShownInFull(kind, content) {
  const plans = kind === "plan" ? [content] : items(content.connections);
  const isAll = kind === "plan" || (plans.length === content.changed && content.failed === 0 && !content.next_cursor);
  return isAll && plans.every((each) => {
    const listed = items(each.changes);
    return listed.length === each.changes_total && listed.length <= MAX_ITEMS && listed.every(isWhole);
  });
}

function isWhole(change) {
  // What the server has cut is not JSON.
  const isJson = (text) => {
    try {
      JSON.parse(text);
      return text.length <= MAX_TEXT;
    } catch {
      return false;
    }
  };
  const values = [change.before, change.after].filter((each) => each !== undefined);
  return typeof change.path === "string" && !change.path.endsWith("…") && values.every(isJson);
}

// The model would not know otherwise.
function tell(tool, args) {
  if (!capabilities.updateModelContext) return;
  const text = `In the app, the user has agreed to call ${tool} with ${JSON.stringify(args)}.`;
  request("ui/update-model-context", { content: [{ type: "text", text }] }).catch(() => {});
}

begin();
