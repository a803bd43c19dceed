<script>
// Counts the requests that run for a region of the page, by its id: `busy(id, 1)` when one begins,
// `busy(id, -1)` when it has ended. Buttons of the class `starts-ID` begin requests for it; they are
// off in between, but keep the focus.
window.busy = (id, more) => {
  const counts = (window.busy.counts ??= {});
  const count = (counts[id] = Math.max(0, (counts[id] || 0) + more)), now = String(count > 0);
  document.getElementById(id)?.setAttribute("aria-busy", now);
  for (const button of document.querySelectorAll(`.starts-${id}`)) button.setAttribute("aria-disabled", now);
  const told = document.querySelector("#working [role=status]");
  if (told && count < 2) told.textContent = count ? "working" : "ready";
};
window.addEventListener("click", (event) => { // by a pointer or a key, before any other listener
  if (event.target.closest('[class*="starts-"][aria-disabled="true"]')) event.stopImmediatePropagation();
}, true);
</script>
