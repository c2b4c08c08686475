// The one script of the pages. It makes no markup out of text: what others wrote is only ever textContent.
"use strict";

const $ = (selector, within = document) => within.querySelector(selector);
const all = (selector, within = document) => [...within.querySelectorAll(selector)];

const typing = (target) => target.closest("input:not([type=radio]):not([type=checkbox]), textarea, select") !== null;

// "/" goes to the search of the page; on a narrow screen lists of steps begin closed.
document.addEventListener("keydown", (event) => {
  const search = $("[data-key='/']");
  if (event.key === "/" && search && !typing(event.target) && !event.ctrlKey && !event.metaKey) {
    event.preventDefault();
    search.focus();
    search.select();
  }
});
if (matchMedia("(max-width: 60rem)").matches) all("details.steps").forEach((part) => part.removeAttribute("open"));

// A run that is being made: its progress every three seconds, its curves every half minute.
const live = $("[data-live]");
if (live) {
  const look = async () => {
    try {
      const answer = await fetch(live.dataset.live, { headers: { accept: "application/json" } });
      if (!answer.ok) return;
      for (const stage of (await answer.json()).stages) {
        const card = $(`[data-stage="${CSS.escape(stage.name)}"]`);
        const state = card && $("[data-state]", card);
        if (!state || !state.classList.contains(stage.state)) return location.reload();
        const told = $("[data-told]", card), done = $("[data-done]", card), bar = $("progress", card);
        if (told && stage.told) told.textContent = stage.told;
        if (done && stage.total) done.textContent = `${stage.done.toLocaleString("en")} / ${stage.total.toLocaleString("en")}`;
        if (bar && stage.state !== "finished") bar.value = stage.share || 0;
      }
    } catch { /* the server is gone; it may come back */ }
  };
  setInterval(look, 3000);
  setInterval(() => document.visibilityState === "visible" && location.reload(), 30000);
}

// What is sent to the server is JSON; what it says when it refuses is shown beside the form.
const send = async (to, what) => {
  const answer = await fetch(to, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(what) });
  const text = await answer.text();
  let said;
  try { said = JSON.parse(text); } catch { said = { error: text || `${answer.status}` }; }
  return { ok: answer.ok, status: answer.status, ...said };
};
const values = (form) => Object.fromEntries(all("[name]", form).map((part) => [part.name, "number" in part.dataset ? Number(part.value) : part.value]));

all("form[data-post]").forEach((form) => form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const told = $("[data-told]", form);
  try {
    const said = await send(form.dataset.post, values(form));
    if (said.ok) location.assign(said.to || location.href);
    else told.textContent = said.error;
  } catch { told.textContent = "The server does not answer."; }
}));

all("[data-sheet]").forEach((input) => input.addEventListener("change", async () => {
  const told = $("[role=status][data-told]");
  try {
    const file = input.files[0];
    const said = await send(input.dataset.sheet, { name: file.name, text: await file.text() });
    told.textContent = said.ok ? [`${file.name}: ${said.taken}`, ...said.outdated].join("; ") : said.error;
    if (said.ok && said.taken) setTimeout(() => location.reload(), 1200);
  } catch { told.textContent = "The server does not answer."; }
}));

// A key on the page presses what bears its name: a link, a button. Nothing while somebody types.
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
  if (typing(event.target) && event.key !== "Escape") return;
  if (event.key === "Escape" && typing(event.target)) return event.target.blur();
  const target = $(`[data-key="${CSS.escape(event.key)}"]`);
  if (target && event.key !== "/") {
    event.preventDefault();
    target.click();
  }
});

// Verdicts wait in this browser until the server has them on disk, whatever dies in between.
const WAITING = "psyforge-waiting";
const waiting = () => { try { return JSON.parse(localStorage.getItem(WAITING)) || []; } catch { return []; } };
const keep = (list) => localStorage.setItem(WAITING, JSON.stringify(list));
const key = () => [...crypto.getRandomValues(new Uint8Array(12))].map((n) => n.toString(16).padStart(2, "0")).join("");

// Returns what the server says of the verdicts that wait: "" once all are on disk.
const flush = async () => {
  for (const one of waiting()) {
    let said;
    try { said = await send(one.to, one.what); } catch { return { error: "away" }; }
    if (said.status === 401) return { error: "token" };
    if (!said.ok && said.status !== 400 && said.status !== 404 && said.status !== 409) return said;
    keep(waiting().filter((other) => other.what.key !== one.what.key));
    if (!said.ok) return said;
  }
  return {};
};

const judge = $("[data-judge]");
if (judge) {
  const begun = performance.now(), form = $("form.verdicts"), told = $("[data-told]", judge);
  const zh = document.documentElement.lang.startsWith("zh");
  const AWAY = zh ? "服务没有应答；判断存在这个浏览器里，服务恢复后会送出。" : "The server does not answer; the verdict waits in this browser and is sent when it is back.";
  const TOKEN = zh ? "服务已重新启动：请打开它新打印的地址；判断存在这个浏览器里。" : "The server was started anew: open the address that it printed; the verdict waits in this browser.";
  let chosen = "", busy = false;

  const go = async () => {
    const said = await flush();
    if (!said.error) return location.assign(judge.dataset.next);
    busy = false;
    told.textContent = said.error === "away" ? AWAY : said.error === "token" ? TOKEN : said.error;
    if (said.error === "away") setTimeout(go, 1500);
    if (said.reload) setTimeout(() => location.reload(), 2500);
  };
  const save = (verdict) => {
    if (busy) return;
    busy = true;
    const edits = {};
    if (verdict === "corrected") all("[data-was]", form).forEach((part) => { if (part.value.trim() !== part.dataset.was.trim()) edits[part.name] = part.value; });
    const reason = $("[name=reason]", form) ? $("[name=reason]", form).value : "";
    const what = { key: key(), item: judge.dataset.item, verdict, reason, before: judge.dataset.before, seconds: Math.min(86400, (performance.now() - begun) / 1000) };
    if ("content" in judge.dataset) what.content = judge.dataset.content;
    if (!("pair" in judge.dataset)) what.edits = edits;
    keep([...waiting(), { to: judge.dataset.judge, what }]);
    go();
  };
  const open = (verdict) => {
    chosen = verdict;
    all(".choice", form).forEach((one) => one.setAttribute("aria-pressed", String(one.dataset.verdict === verdict)));
    let first = null;
    all("[data-for]", form).forEach((part) => {
      part.hidden = !part.dataset.for.split(" ").includes(verdict);
      if (!part.hidden && !first) first = $("input, textarea", part);
    });
    if (first) first.focus();
  };
  if (form) {
    all(".choice", form).forEach((button) => button.addEventListener("click", () => {
      const verdict = button.dataset.verdict;
      if ($(`[data-for~="${verdict}"]`, form)) open(verdict); else save(verdict);
    }));
    form.addEventListener("submit", (event) => { event.preventDefault(); if (chosen) save(chosen); });
    form.addEventListener("keydown", (event) => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && chosen) { event.preventDefault(); save(chosen); } });
    const cancel = $("[data-cancel]", form);
    if (cancel) cancel.addEventListener("click", () => open(""));
  }
  document.addEventListener("keydown", (event) => {
    if (typing(event.target) || event.ctrlKey || event.metaKey || event.altKey) return;
    const part = event.key === "o" ? $("[data-warned]") : event.key === "g" ? $("details.guideline, .guideline details") : null;
    if (part) part.open = !part.open;
    if (event.key === "n" && "pair" in judge.dataset) { event.preventDefault(); $("[name=reason]", form).focus(); }
  });
  if (matchMedia("(max-width: 60rem)").matches && $(".guideline details")) $(".guideline details").open = false;
  if (waiting().length) { busy = true; flush().then((said) => { busy = false; if (!said.error) location.assign(judge.dataset.to); else go(); }); }
}

// Talking: every model answers in a stream of its own, clause by clause, as the crisis gate lets it pass.
const chat = $("[data-chat]");
if (chat) {
  const words = $("[data-words]").dataset, form = $("form.message"), message = $("#message"), told = $("[data-told]", form);
  let id = key(), running = null;
  const made = (name, className, text) => {
    const part = document.createElement(name);
    if (className) part.className = className;
    if (text !== undefined) part.textContent = text;
    return part;
  };
  const turn = (log, role) => {
    const part = made("div", `turn ${role}`);
    part.append(made("div", "who", words[role]));
    log.append(part);
    return part;
  };
  const listen = async (section, what, signal) => {
    const log = $(".talk", section);
    turn(log, "client").append(made("div", "text", what.text));
    let part = null, thought = null, reply = null;
    const take = (event) => {
      if (event.kind === "guidance") {
        const guidance = made("div", "guidance text", event.text);
        guidance.setAttribute("role", "alert");
        if (part && part.isConnected) part.before(guidance); else log.append(guidance);
      } else if (event.kind === "note") log.append(made("p", "aside-of text", event.text));
      else if (event.kind === "thought" || event.kind === "reply") {
        part = part || turn(log, "counselor");
        if (event.kind === "thought") {
          if (!thought) {
            const fold = made("details", "thought");
            thought = made("div", "text");
            fold.append(made("summary", "", words.thought), thought);
            part.append(fold);
          }
          thought.textContent += event.text;
        } else {
          if (!reply) part.append(reply = made("div", "text"));
          reply.textContent += event.text.replace(reply.textContent ? /$^/ : /^\s+/, "");
        }
      }
    };
    const answer = await fetch("/chat/say", { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(what), signal });
    if (!answer.ok) {
      const said = await answer.text();
      try { return take({ kind: "note", text: JSON.parse(said).error }); } catch { return take({ kind: "note", text: said }); }
    }
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    for (let rest = "";;) {
      const { done, value } = await reader.read();
      if (done) break;
      const lines = (rest + value).split("\n");
      rest = lines.pop();
      lines.filter(Boolean).forEach((line) => take(JSON.parse(line)));
    }
  };
  const say = async () => {
    const text = message.value.trim();
    if (!text || running) return;
    running = new AbortController();
    const given = Object.fromEntries(all(".sampling [name]").map((part) => [part.name, part.type === "number" ? Number(part.value) : part.value]));
    message.value = "";
    told.textContent = "";
    $("[data-stop]").hidden = false;
    await Promise.all(all("[data-model]").map((section) => listen(section, { id, model: section.dataset.model, text, ...given }, running.signal)
      .catch((error) => { if (error.name !== "AbortError") told.textContent = words.away; })));
    running = null;
    $("[data-stop]").hidden = true;
    message.focus();
  };
  form.addEventListener("submit", (event) => { event.preventDefault(); say(); });
  message.addEventListener("keydown", (event) => { if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); say(); } });
  $("[data-stop]").addEventListener("click", () => running && running.abort());
  $("[data-new]").addEventListener("click", () => {
    if (running) running.abort();
    id = key();
    all("[data-model] .talk").forEach((log) => log.replaceChildren());
    told.textContent = "";
    message.focus();
  });
  $("[data-save]").addEventListener("click", async () => {
    try {
      const said = await send("/chat/save", { ids: [id] });
      told.textContent = said.ok ? `${words.saved} ${said.files.join("  ")}` : said.error;
    } catch { told.textContent = words.away; }
  });
}
