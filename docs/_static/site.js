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
