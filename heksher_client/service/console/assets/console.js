// Where there is no answer at all, htmx would say nothing.
document.addEventListener("htmx:sendError", () => {
  document.getElementById("lost").hidden = false
})
document.addEventListener("htmx:afterOnLoad", () => {
  document.getElementById("lost").hidden = true
})
// The icon's address is relative, and htmx changes the address of the page.
for (const icon of document.querySelectorAll("link[rel=icon]")) icon.href = icon.href
// Addresses have the filters in use only.
document.addEventListener("htmx:configRequest", ({ detail }) => {
  if (detail.verb !== "get") return
  for (const [name, value] of [...detail.formData]) if (!value) detail.formData.delete(name)
})
// What is typed into a filter does not fill the history of the browser: all of it is one entry.
document.addEventListener("htmx:beforeHistoryUpdate", ({ detail }) => {
  const cause = detail.requestConfig.triggeringEvent
  const isTyped = cause?.type === "input" && cause.target.matches("input:not([type=checkbox])")
  if (isTyped) detail.history.type = "replace"
})

// A time in the reader's time zone, with as many characters as are to be shown.
function localTime(at, length) {
  const parts = new Intl.DateTimeFormat("en-GB", { timeZoneName: "short" }).formatToParts(at)
  const zone = parts.find((part) => part.type === "timeZoneName").value
  return `${at.toLocaleString("sv").slice(0, length)} ${zone}`
}

// Times are shown in the reader's time zone; their tooltips have them in UTC.
function showLocalTimes(part) {
  for (const time of part.querySelectorAll("time[datetime]:not([data-utc])")) {
    const at = new Date(time.dateTime)
    const utc = time.textContent.trim()
    if (isNaN(at) || !utc.endsWith(" UTC")) continue
    time.dataset.utc = time.title = utc
    time.textContent = localTime(at, utc.length - 4) // as precise as before
  }
}

// Times are entered in UTC; the reader's time is shown below.
function showEnteredTimes(part) {
  for (const input of part.querySelectorAll("input[type=datetime-local]:not([data-shown])")) {
    const shown = document.createElement("output")
    const show = () => {
      const at = new Date(`${input.value}Z`)
      shown.textContent = isNaN(at) || !at.getTimezoneOffset() ? "" : localTime(at, input.value.length)
    }
    input.dataset.shown = "yes"
    shown.className = "aside"
    shown.htmlFor = input.id
    input.after(shown)
    input.addEventListener("input", show)
    show()
  }
}

// Keys. Speech input may type them by accident, so they can be turned off.
const KEYS = [
  ["/", "Search"],
  ["Esc", "Leave the search field"],
  ["g s", "Go to settings", "console"],
  ["g c", "Go to changes", "console/changes"],
  ["g f", "Go to context features", "console/features"],
  ["j, ↓", "Next row"],
  ["k, ↑", "Previous row"],
  ["Enter", "Open the row"],
  ["?", "Show these keys"],
]
const OFF = "heksher.keys.off"
let previous = { key: "", timeStamp: 0 }

function go(key) {
  const [, , path] = KEYS.find(([keys]) => keys === `g ${key}`) || []
  const link = path && document.querySelector(`header nav a[href$="${path}"]`)
  if (link) link.click()
  return Boolean(link)
}

function moveToRow(step, fromRowOnly) {
  const all = [...document.querySelectorAll("main tbody tr")]
  const rows = all.filter((row) => row.querySelector("a[href]") && row.getClientRects().length)
  const current = rows.indexOf(document.activeElement?.closest("tr"))
  if (current < 0 && fromRowOnly) return false
  const below = rows.findIndex((row) => row.getBoundingClientRect().top >= 0)
  const row = rows[current < 0 ? Math.max(below, 0) : current + step]
  if (row) row.querySelector("a[href]").focus()
  return Boolean(row)
}

function showKeys() {
  let dialog = document.getElementById("keys")
  if (!dialog) {
    dialog = document.createElement("dialog")
    dialog.id = "keys"
    dialog.setAttribute("aria-labelledby", "keys-title")
    dialog.innerHTML =
      '<h2 id="keys-title">Keys</h2><dl></dl>' +
      '<form method="dialog"><label><input type="checkbox" id="keys-on"> Use these keys</label><button>Close</button></form>'
    for (const [keys, meaning] of KEYS) {
      const row = dialog.querySelector("dl").appendChild(document.createElement("div"))
      row.appendChild(document.createElement("dt")).textContent = keys
      row.appendChild(document.createElement("dd")).textContent = meaning
    }
    dialog.querySelector("input").addEventListener("change", (event) => {
      localStorage.setItem(OFF, event.target.checked ? "" : "yes")
    })
    document.body.append(dialog)
  }
  dialog.querySelector("input").checked = !localStorage.getItem(OFF)
  if (!dialog.open) dialog.showModal()
  return true
}

function press({ key, timeStamp }) {
  const isSecond = previous.key === "g" && timeStamp - previous.timeStamp < 1500
  previous = { key, timeStamp }
  if (isSecond) return go(key)
  const search = document.getElementById("search")
  switch (key) {
    case "/":
      if (search) search.select(), search.focus()
      return Boolean(search)
    case "j":
    case "ArrowDown":
      return moveToRow(1, key !== "j")
    case "k":
    case "ArrowUp":
      return moveToRow(-1, key !== "k")
    case "?":
      return showKeys()
  }
  return false
}

document.addEventListener("keydown", (event) => {
  const target = event.target
  if (event.key === "Escape" && target.type === "search") return target.blur()
  const isTyping = target.closest("input, select, textarea, [contenteditable], dialog")
  if (isTyping || event.ctrlKey || event.metaKey || event.altKey || localStorage.getItem(OFF)) return
  if (press(event)) event.preventDefault()
})

// The pages and parts of pages that htmx loads are enhanced as the first one is.
function enhance(part) {
  showLocalTimes(part)
  showEnteredTimes(part)
  part.querySelector("#done")?.focus({ preventScroll: true }) // Its undo button is next.
  const footer = document.querySelector("footer")
  if (footer && !footer.querySelector("button")) {
    const button = footer.appendChild(document.createElement("button"))
    button.type = "button"
    button.className = "quiet"
    button.textContent = "Keys"
    button.addEventListener("click", showKeys)
  }
}
document.addEventListener("htmx:load", (event) => enhance(event.detail.elt))
enhance(document)
