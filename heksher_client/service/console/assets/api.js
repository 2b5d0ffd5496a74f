// The document names no server, or the one that the service knows. Its own address is right behind any proxy.
window.addEventListener("load", async () => {
  const response = await fetch("openapi.json")
  const spec = { ...(await response.json()), servers: [{ url: location.pathname.replace(/\/docs$/, "") || "/" }] }
  SwaggerUIBundle({ spec, dom_id: "#api", deepLinking: true, validatorUrl: null })
})
