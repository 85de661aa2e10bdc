// Read from a folder, a page may not fetch another: the search then shows titles without excerpts.
if (location.protocol === "file:") DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false

// What is wider than its place can be scrolled with the keyboard, once it can take the focus.
const makeReachable = () => {
  for (const element of document.querySelectorAll("pre, .table-wrapper, div.math"))
    if (element.scrollWidth > element.clientWidth) element.tabIndex = 0
    else element.removeAttribute("tabindex")
}
addEventListener("load", makeReachable)
addEventListener("resize", makeReachable)
addEventListener("toggle", makeReachable, true)  // a folded cell has no width before it is opened

addEventListener("DOMContentLoaded", () => {
  // Two parts beside the text need names of their own.
  document.querySelector(".sidebar-drawer")?.setAttribute("aria-label", "All pages")
  document.querySelector(".toc-drawer")?.setAttribute("aria-label", "On this page")
  // A long signature is set as a list of definitions, which it is not.
  for (const element of document.querySelectorAll("dt.sig dl, dt.sig dl > dd")) element.setAttribute("role", "none")
})
