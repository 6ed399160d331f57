(function () {
  "use strict";
  var EVERY = 2000, tag = null, said = document.getElementById("live"), busy = false, again = false;

  function parts(root) {
    var named = new Map();
    root.querySelectorAll("main [data-part]").forEach(function (part) { named.set(part.dataset.part, part); });
    return named;
  }
  var known = new Map();  // each part as the server wrote it, before any script changed it
  parts(document).forEach(function (part, name) { known.set(name, part.outerHTML); });

  function kept(part) {
    var chosen = [], open = [], slider = part.querySelector(".slides input"), focus = part.contains(document.activeElement);
    part.querySelectorAll("input:checked").forEach(function (box) { chosen.push(box.value); });
    part.querySelectorAll("details:not(.slides details)").forEach(function (one, k) { if (one.open) open.push(k); });
    return {
      chosen: chosen, open: open, focus: focus ? document.activeElement : null,
      slide: slider && slider.value !== slider.max ? slider.value : null
    };
  }
  function restore(part, state) {
    part.querySelectorAll("input[type=checkbox]").forEach(function (box) { box.checked = state.chosen.indexOf(box.value) >= 0; });
    part.querySelectorAll("details:not(.slides details)").forEach(function (one, k) { one.open = state.open.indexOf(k) >= 0; });
    var slider = part.querySelector(".slides input");
    if (slider && state.slide !== null) {
      slider.value = state.slide;
      slider.dispatchEvent(new Event("input"));
    }
    if (state.focus) {
      var name = state.focus.getAttribute("aria-label"), href = state.focus.getAttribute("href");
      part.querySelectorAll("input, a, button, summary").forEach(function (one) {
        if ((name && one.getAttribute("aria-label") === name) || (href && one.getAttribute("href") === href)) one.focus();
      });
    }
  }
  function renew(html) {
    var next = new DOMParser().parseFromString(html, "text/html"), fresh = parts(next), old = parts(document);
    var same = fresh.size === old.size && Array.from(fresh.keys()).every(function (name) { return old.has(name); });
    if (!same) {  // parts have come or gone: the whole content is taken
      known = new Map();
      fresh.forEach(function (part, name) { known.set(name, part.outerHTML); });
      var main = document.adoptNode(next.querySelector("main"));
      document.querySelector("main").replaceWith(main);
      main.dispatchEvent(new Event("renewed", { bubbles: true }));
      listen();
      return;
    }
    fresh.forEach(function (part, name) {
      var text = part.outerHTML;
      if (text === known.get(name)) return;
      var state = kept(old.get(name)), node = document.adoptNode(part);
      known.set(name, text);
      old.get(name).replaceWith(node);
      node.dispatchEvent(new Event("renewed", { bubbles: true }));
      restore(node, state);
    });
  }
  function look(force) {
    if (document.hidden && !force) return;
    if (busy) {
      again = again || force;
      return;
    }
    busy = true;
    again = false;
    var headers = tag && !force ? { "If-None-Match": tag } : {};
    fetch(location.href, { headers: headers, cache: "no-store", credentials: "same-origin" }).then(function (answer) {
      if (answer.status === 304) return null;
      if (!answer.ok) throw new Error(String(answer.status));
      tag = answer.headers.get("ETag");
      return answer.text();
    }).then(function (html) {
      if (html !== null) renew(html);
      said.textContent = "This page follows the runs.";
    }).catch(function () {
      said.textContent = "The board does not answer; this page is as of the last answer.";
    }).finally(function () {
      busy = false;
      if (again) look(true);
    });
  }
  function listen() {
    var filter = document.getElementById("filter"), timer = null;
    if (!filter) return;
    function apply() {
      var query = new URLSearchParams(new FormData(filter));
      Array.from(query.keys()).forEach(function (key) { if (!query.get(key)) query.delete(key); });
      history.replaceState(null, "", query.toString() ? "/?" + query : "/");
      look(true);
    }
    filter.addEventListener("input", function () { clearTimeout(timer); timer = setTimeout(apply, 200); });
    filter.addEventListener("submit", function (event) { event.preventDefault(); apply(); });
  }
  listen();
  document.addEventListener("visibilitychange", function () { look(false); });
  setInterval(function () { look(false); }, EVERY);
  look(false);
})();
