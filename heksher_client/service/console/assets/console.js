// Where there is no answer at all, htmx would say nothing.
document.addEventListener("htmx:sendError", () => {
  document.getElementById("lost").hidden = false
})
document.addEventListener("htmx:afterOnLoad", () => {
  document.getElementById("lost").hidden = true
})
