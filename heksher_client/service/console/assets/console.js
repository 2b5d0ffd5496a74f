// Where there is no answer at all, htmx would say nothing.
document.addEventListener("htmx:sendError", () => {
  document.getElementById("lost").hidden = false
})
document.addEventListener("htmx:afterOnLoad", () => {
  document.getElementById("lost").hidden = true
})
// The icon's address is relative, and htmx changes the address of the page.
for (const icon of document.querySelectorAll("link[rel=icon]")) icon.href = icon.href
