// The panel's only script. Every page works without it; with it, pages stay up to date in place and times stay true.
"use strict";
(() => {
  const EVERY_MS = 5000, PATIENCE_MS = 20000;
  const main = () => document.getElementById("main");
  const state = document.getElementById("state");
  let tag = null, seen = Date.now(), ahead = 0, timer = 0, asking = null, missed = false, waits = false;

  // ---- times ----
  const now = () => Date.now() + ahead;
  const pad = (n) => String(n).padStart(2, "0");
  const hms = (ms) => { const d = new Date(ms); return [d.getUTCHours(), d.getUTCMinutes(), d.getUTCSeconds()].map(pad).join(":"); };
  const lasting = (s) => {
    for (const [limit, size, unit] of [[90, 1, "s"], [5400, 60, "min"], [172800, 3600, "h"]]) if (s < limit) return `${Math.round(s / size)} ${unit}`;
    return `${Math.round(s / 86400)} d`;
  };
  const relative = (ms) => {
    const s = (ms - now()) / 1000;
    return Math.abs(s) < 1 ? "now" : s > 0 ? `in ${lasting(s)}` : `${lasting(-s)} ago`;
  };
  const say = (element, text) => { if (element.textContent !== text) element.textContent = text; };
  function tell() {
    for (const one of document.querySelectorAll("time[data-ago]")) say(one, relative(Date.parse(one.dateTime)));
    for (const one of document.querySelectorAll("time[data-clock]")) {
      const utc = `${hms(now())} UTC`;
      say(one, one.dataset.zone === "UTC" ? utc : `${hms(now() + one.dataset.clock * 60000)} ${one.dataset.zone} · ${utc}`);
    }
  }

  // ---- changing the page in place ----
  const FIELDS = "input,select,textarea";
  const isTouched = (field) => field === document.activeElement || (field.type === "checkbox" ? field.checked !== field.defaultChecked
    : field.tagName === "SELECT" ? field.selectedIndex !== Math.max([...field.options].findIndex((one) => one.defaultSelected), 0)
    : field.type !== "hidden" && field.value !== field.defaultValue);
  const isBusy = (form) => [...form.elements].some((field) => field.matches(FIELDS) && isTouched(field));
  const keyOf = (node) => node.nodeType === 1 ? node.id || node.dataset.key || null : null;
  const fits = (a, b) => a.nodeType === b.nodeType && a.nodeName === b.nodeName && keyOf(a) === keyOf(b);

  function copyAttributes(from, to) {
    for (const { name } of [...to.attributes]) if (!from.hasAttribute(name) && name !== "open") to.removeAttribute(name);
    for (const { name, value } of from.attributes) if (to.getAttribute(name) !== value) to.setAttribute(name, value);
  }
  // Makes `old` like `fresh`, and keeps every element that is still there: with its focus, its scroll and what was typed into it.
  function change(old, fresh) {
    if (old.nodeType !== 1) { if (old.data !== fresh.data) old.data = fresh.data; return; }
    if (old.isEqualNode(fresh) && !old.matches(FIELDS)) return;
    if (old.tagName === "FORM" && isBusy(old)) { missed = true; return; }  // somebody is filling it in
    copyAttributes(fresh, old);
    if (old.tagName === "INPUT" && old.type !== "hidden" && !isTouched(old)) old.value = fresh.value;
    changeChildren(old, fresh);
  }
  function changeChildren(old, fresh) {
    const steady = old.closest("[data-steady]");
    if (steady && isUnderPointer(steady) && keys(old) !== keys(fresh)) {  // nothing moves under the pointer: only what is there changes
      const by = new Map([...fresh.children].map((one) => [keyOf(one), one]));
      for (const one of old.children) if (keyOf(one) && by.has(keyOf(one))) change(one, by.get(keyOf(one)));
      missed = waits = true;
      return;
    }
    const keyed = new Map([...old.childNodes].filter(keyOf).map((one) => [keyOf(one), one]));
    let at = old.firstChild;
    for (const wanted of [...fresh.childNodes]) {
      let found = keyOf(wanted) ? keyed.get(keyOf(wanted)) : at && !keyOf(at) && fits(at, wanted) ? at : null;
      if (found && fits(found, wanted)) {
        if (found === at) at = at.nextSibling; else old.insertBefore(found, at);
        change(found, wanted);
      } else old.insertBefore(document.importNode(wanted, true), at);
    }
    while (at) { const next = at.nextSibling; if (!holdsFocus(at)) at.remove(); at = next; }
  }
  const keys = (node) => [...node.children].map(keyOf).join("\n");
  const holdsFocus = (node) => node.nodeType === 1 && node.contains(document.activeElement) && node.querySelector(FIELDS) !== null;
  const isUnderPointer = (node) => node.matches(":hover") || node.contains(document.activeElement);

  function show(text) {
    const page = new DOMParser().parseFromString(text, "text/html"), fresh = page.getElementById("main");
    if (!fresh) return;
    missed = waits = false;
    const top = page.getElementById("top");
    if (top) change(document.getElementById("top"), top);
    if (fresh.dataset.problem === main().dataset.problem) change(main(), fresh);
    else main().replaceWith(document.importNode(fresh, true));
    document.title = page.title;
    tell();
  }

  // ---- asking ----
  function stale(why) {
    const old = Date.now() - seen > EVERY_MS * 2;
    say(state, why ? `${why} What you see is from ${hms(seen + ahead)} UTC.` : old ? `Not refreshed since ${hms(seen + ahead)} UTC.`
      : waits ? "There is something new; it is shown when you leave the list." : "");
  }
  async function ask() {
    clearTimeout(timer);
    if (document.hidden || asking || !main().dataset.live) return;
    asking = new AbortController();
    const late = setTimeout(() => asking.abort(), PATIENCE_MS);
    try {
      const answer = await fetch(location.href, { headers: tag ? { "If-None-Match": tag } : {}, signal: asking.signal, cache: "no-store", redirect: "manual" });
      const date = Date.parse(answer.headers.get("Date"));
      if (date && Math.abs(date - Date.now()) > 5000) ahead = date - Date.now();
      if (answer.type === "opaqueredirect") stale("You are not signed in any more: reload the page.");
      else if (answer.status === 304) { seen = Date.now(); stale(); }
      else {
        const text = await answer.text();
        if (answer.ok) { seen = Date.now(); show(text); stale(); tag = missed ? null : answer.headers.get("ETag"); }
        else if (main().dataset.problem) show(text);
        else stale(`${new DOMParser().parseFromString(text, "text/html").querySelector("[role=alert]")?.textContent.trim() || "The server can't answer"}.`);
      }
    } catch { stale("The server does not answer."); }
    finally { clearTimeout(late); asking = null; if (!document.hidden) timer = setTimeout(ask, EVERY_MS); }
  }

  document.addEventListener("visibilitychange", () => { clearTimeout(timer); if (!document.hidden) ask(); });
  window.addEventListener("online", ask);
  window.addEventListener("pageshow", (event) => { if (event.persisted) ask(); });
  document.addEventListener("submit", (event) => {  // a second click sends no second form
    if (event.target.dataset.sent) event.preventDefault(); else if (event.target.method === "post") event.target.dataset.sent = "1";
  });
  window.addEventListener("pagehide", () => { for (const form of document.forms) delete form.dataset.sent; });
  // A link from a mail leads here although the browser has a session: it does not send a strict cookie with the first request.
  const wanted = document.querySelector("form[data-wanted]");
  if (wanted && !sessionStorage.getItem("tried")) {
    sessionStorage.setItem("tried", "1");
    fetch(wanted.dataset.wanted, { redirect: "manual" }).then((answer) => { if (answer.ok) location.replace(wanted.dataset.wanted); }, () => {});
  } else if (!wanted) sessionStorage.removeItem("tried");

  tell();
  setInterval(() => { if (!document.hidden) { tell(); if (main().dataset.live && !state.textContent) stale(); } }, 1000);
  if (main().dataset.live) timer = setTimeout(ask, EVERY_MS);
})();
