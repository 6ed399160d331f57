(function () {
  "use strict";
  function enliven(box) {
    var frames = Array.prototype.slice.call(box.querySelectorAll("details"));
    if (frames.length < 2) return;
    var controls = document.createElement("div"), button = document.createElement("button");
    var slider = document.createElement("input"), timer = null, last = frames.length - 1;
    controls.className = "controls";
    button.type = "button";
    slider.type = "range";
    slider.min = 0;
    slider.max = last;
    slider.value = last;
    slider.setAttribute("aria-label", "Epoch of the cell");
    function show(place) {
      frames.forEach(function (frame, k) {
        frame.hidden = k !== place;
        frame.open = k === place;
      });
      slider.value = place;
      slider.setAttribute("aria-valuetext", frames[place].querySelector("summary").textContent);
    }
    function stop() {
      clearInterval(timer);
      timer = null;
      button.textContent = "Play";
    }
    button.addEventListener("click", function () {
      if (timer !== null) return stop();
      button.textContent = "Stop";
      show(Number(slider.value) === last ? 0 : Number(slider.value));
      timer = setInterval(function () {
        var next = Number(slider.value) + 1;
        if (next > last) return stop();
        show(next);
      }, 700);
    });
    slider.addEventListener("input", function () {
      stop();
      show(Number(slider.value));
    });
    controls.append(button, slider);
    box.prepend(controls);
    box.classList.add("live");
    stop();
    show(last);
  }
  document.querySelectorAll(".slides").forEach(enliven);
  document.addEventListener("renewed", function (event) {
    event.target.querySelectorAll(".slides").forEach(enliven);
  });
})();
