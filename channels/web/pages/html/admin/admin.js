// The administrators' page: signs in and out, shows the view that the URL's fragment names, and refreshes it.

/** Milliseconds between two looks, while the page is visible. */
const LOOK_MS = 5_000;
/** Most seconds until the next try after failed ones. */
const LONGEST = 30;
const ROLES = ["viewer", "operator", "admin"];
/** The sentences of refusals by their reason. */
const REASONS = { stream_unknown: "gone", no_questions: "noQuestions", batch_queue_full: "batchesFull", batch_key_full: "batchesFull" };
const VIEWS = { today, live, questions, usage, feedback, rules, work };

let session = null;
let failures = 0;
let timer = 0;
/** Number of the newest look; what an older one finds is ignored. */
let round = 0;

const viewNamed = () => (Object.hasOwn(VIEWS, location.hash.slice(1)) ? location.hash.slice(1) : "today");

/** Return the sentence for a failed request. */
function refusalWords({ status, reason, seconds }) {
  if (status === 0) return word("broken");
  if (Object.hasOwn(REASONS, reason)) return word(REASONS[reason]);
  if (status === 429) return word("blocked", { time: duration(seconds) });
  if (reason?.startsWith("rules_")) return word(reason);
  if (status === 422) return word("wrongFilter");
  return word(`why_${status}`) ?? word("failedRequest");
}

function showRefusal(refused) {
  if (!(refused instanceof Refused)) throw refused;
  if (refused.status === 401) return signedOut("expired");
  return say("trouble", () => refusalWords(refused));
}

// ---- the session ----------------------------------------------------------------------------------------------

/** Show the form for the token; `why` is the key of a sentence, or a failed request. */
function signedOut(why = "") {
  session = null;
  round += 1;
  beginViews();
  clearTimeout(timer);
  for (const dialog of document.querySelectorAll("dialog[open]")) dialog.close();
  byId("desk").hidden = byId("sign-out").hidden = byId("who").hidden = true;
  byId("sign-in").hidden = false;
  byId("state").hidden = true;
  say("sign-in-failed", () => (typeof why === "string" ? why && word(why) : refusalWords(why)));
  byId("token").focus();
}

function signedIn(found) {
  session = found;
  byId("sign-in").hidden = true;
  byId("desk").hidden = byId("sign-out").hidden = byId("who").hidden = byId("state").hidden = false;
  drawWho();
  for (const one of document.querySelectorAll("[data-role]")) one.hidden = !may(one.dataset.role);
  beginViews();
  openView();
}

/** Let every view forget what the person before has seen. */
function beginViews() {
  for (const part of [...Object.values(VIEWS), comparison]) part.begin({ may, refused: showRefusal });
}

/** Whether the person has a role; the server checks it again. */
const may = (role) => ROLES.indexOf(session?.role) >= ROLES.indexOf(role);

function drawWho() {
  if (session) put(byId("who"), word("pair", { name: session.name, value: word(`role_${session.role}`) }));
}

async function signIn(event) {
  event.preventDefault();
  byId("enter").disabled = true;
  try {
    const found = await api.signIn(byId("token").value.trim());
    byId("token").value = "";
    say("sign-in-failed");
    signedIn(found);
    byId("views").querySelector("[aria-current]").focus();
  } catch (refused) {
    if (!(refused instanceof Refused)) throw refused;
    signedOut(refused.status === 401 ? "wrongToken" : refused);
  } finally {
    byId("enter").disabled = false;
  }
}

async function signOut() {
  await api.signOut().catch(() => {});
  signedOut();
}

// ---- the views ------------------------------------------------------------------------------------------------

function openView() {
  if (!session) return;
  const named = viewNamed();
  for (const name of Object.keys(VIEWS)) byId(name).hidden = name !== named;
  for (const link of byId("views").children) {
    if (link.dataset.view === named) {
      link.setAttribute("aria-current", "page");
      // On a phone the row of views scrolls.
      link.scrollIntoView({ block: "nearest", inline: "nearest" });
    } else link.removeAttribute("aria-current");
  }
  say("trouble");
  look();
}

/** Look now, and schedule the next look. */
async function look() {
  clearTimeout(timer);
  const mine = ++round;
  let wait = LOOK_MS;
  try {
    // A page that was opened with a session learns its role and CSRF token first.
    if (!session) return signedIn(await api.session());
    await VIEWS[viewNamed()].look();
    if (mine !== round) return;
    if (failures) say("trouble");
    failures = 0;
    header.showState("open");
  } catch (refused) {
    if (mine !== round) return;
    showRefusal(refused);
    if (refused.status === 401) return;
    wait = Math.min(LONGEST, 2 ** ++failures) * 1000;
    header.showState("waiting", wait / 1000);
  }
  timer = setTimeout(lookLater, wait);
}

/** Look once the page is visible: a hidden one asks for nothing. */
function lookLater() {
  if (!document.hidden) look();
}

preferences.on("locale", () => {
  relabel();
  drawWho();
  for (const part of [...Object.values(VIEWS), comparison]) part.draw();
});
byId("sign-in").addEventListener("submit", signIn);
byId("sign-out").addEventListener("click", signOut);
addEventListener("hashchange", openView);
document.addEventListener("visibilitychange", () => byId("sign-in").hidden && lookLater());

relabel();
if (document.querySelector("main").dataset.signedIn === "yes") look();
else signedOut();
