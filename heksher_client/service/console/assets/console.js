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
