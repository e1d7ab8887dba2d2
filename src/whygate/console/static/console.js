"use strict";
// Little, and nothing that a page could not do without, but for passkeys: those need a script.
const tokenOf = (form) => form.querySelector("input[name=csrf]")?.value || "";
const bytes = (text) => Uint8Array.from(atob(text.replace(/-/g, "+").replace(/_/g, "/")), (c) => c.charCodeAt(0));
const text = (buffer) => btoa(String.fromCharCode(...new Uint8Array(buffer))).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");

function decoded(options) {
  const made = { ...options, challenge: bytes(options.challenge) };
  if (made.user) made.user = { ...made.user, id: bytes(made.user.id) };
  for (const key of ["allowCredentials", "excludeCredentials"]) {
    if (made[key]) made[key] = made[key].map((each) => ({ ...each, id: bytes(each.id) }));
  }
  return made;
}

function encoded(credential) {
  const said = credential.response, response = { clientDataJSON: text(said.clientDataJSON) };
  for (const key of ["attestationObject", "authenticatorData", "signature", "userHandle"]) {
    if (said[key]) response[key] = text(said[key]);
  }
  return { id: credential.id, rawId: text(credential.rawId), type: credential.type, response, clientExtensionResults: {} };
}

async function prove(form, submitter) {
  const fields = new FormData(form);
  if (submitter?.name) fields.set(submitter.name, submitter.value);
  const answer = await fetch(form.dataset.passkey, { method: "POST", body: new URLSearchParams(fields), headers: { "x-csrf": tokenOf(form) } });
  const told = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(told.error || "This page is too old. Load it again.");
  const publicKey = decoded(told.options);
  const made = form.dataset.create ? await navigator.credentials.create({ publicKey }) : await navigator.credentials.get({ publicKey });
  const put = (name, value) => {
    let input = form.querySelector(`input[name=${name}]`);
    if (!input) { input = document.createElement("input"); input.type = "hidden"; input.name = name; form.append(input); }
    input.value = value;
  };
  put("passkey", JSON.stringify({ ceremony: told.ceremony, response: encoded(made) }));
  if (told.nonce) put("nonce", told.nonce);
  if (submitter?.name) put(submitter.name, submitter.value);
  form.submit();
}

for (const form of document.querySelectorAll("form[data-passkey]")) {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const status = form.querySelector("[role=status]");
    if (!window.PublicKeyCredential) { status.textContent = "This browser has no passkeys, or the page was not reached by its own name (localhost, not an address in digits)."; return; }
    status.textContent = "Waiting for your passkey …";
    prove(form, event.submitter).catch((error) => {
      status.textContent = error.name === "NotAllowedError" ? "No passkey was shown. Try again." : error.message;
    });
  });
}

for (const form of document.querySelectorAll("form[data-confirm]")) {
  form.addEventListener("submit", (event) => { if (!window.confirm(form.dataset.confirm)) event.preventDefault(); });
}

function tick() {
  const now = Date.now() / 1000;
  for (const each of document.querySelectorAll("[data-until]")) {
    const left = Math.max(0, Math.round(Number(each.dataset.until) - now)), minutes = Math.floor(left / 60);
    each.textContent = left === 0 ? "time is over" : minutes >= 60 ? `${Math.floor(minutes / 60)} h ${minutes % 60} min left` : `${minutes}:${String(left % 60).padStart(2, "0")} left`;
    if (left === 0 && each.dataset.ends) document.querySelector(each.dataset.ends)?.setAttribute("hidden", "");
  }
}
if (document.querySelector("[data-until]")) { tick(); setInterval(tick, 1000); }

const counts = document.querySelectorAll(".count");
if (counts.length && window.EventSource) {
  let before = counts[0].dataset.count;
  new EventSource("/console/live").addEventListener("inbox", async (event) => {
    for (const each of counts) { each.dataset.count = event.data; each.textContent = event.data; }
    const list = document.querySelector("[data-live]");
    if (list && event.data !== before) {
      const page = new DOMParser().parseFromString(await (await fetch(location.href)).text(), "text/html");
      const fresh = page.querySelector("[data-live]");
      if (fresh) { list.replaceWith(fresh); tick(); }
    }
    before = event.data;
  });
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName)) return;
  const rows = [...document.querySelectorAll("a.row")], at = rows.indexOf(document.activeElement);
  if (event.key === "j" || event.key === "n") rows[Math.min(at + 1, rows.length - 1)]?.focus();
  else if (event.key === "k" || event.key === "p") rows[Math.max(at - 1, 0)]?.focus();
  else if (event.key === "a") document.querySelector("button.yes")?.focus();
  else if (event.key === "d") document.querySelector("button.no")?.focus();
  else if (event.key === "u") document.querySelector("a[data-up]")?.click();
  else return;
  event.preventDefault();
});
