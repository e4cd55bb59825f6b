"use strict";
const reducedMotion = matchMedia("(prefers-reduced-motion: reduce)");
const formatTime = (s) => Math.floor(s / 60) + ":" + String(Math.floor(s % 60)).padStart(2, "0");

/** Connect a sample's audio player with its piano-roll: playhead, notes, slider, scrolling. */
function connect(sample, audio) {
  const slider = sample.querySelector("[role=slider]");
  const viewport = sample.querySelector(".viewport");
  const playhead = sample.querySelector(".playhead");
  const seconds = Number(slider.ariaValueMax);
  const beats = sample.querySelector("svg").viewBox.baseVal.width;
  const notes = [...sample.querySelectorAll("rect")].map((rect) => {
    const start = rect.x.baseVal.value;
    return { rect, start, end: start + rect.width.baseVal.value };
  });
  let shownBeat = -1, shownTime = "";

  function update() {
    const position = Math.min(audio.currentTime / seconds, 1) * beats;
    const beat = Math.floor(position * 8) / 8;  // notes are shown to the nearest thirty-second
    playhead.setAttribute("transform", `translate(${reducedMotion.matches ? beat : position})`);
    if (beat !== shownBeat) {
      for (const { rect, start, end } of notes) {
        rect.classList.toggle("playing", start <= beat && beat < end);
      }
      shownBeat = beat;
    }
    const time = `${formatTime(audio.currentTime)} of ${formatTime(seconds)}`;
    if (time !== shownTime) {  // once a second, since screen readers announce each change
      slider.ariaValueText = shownTime = time;
      slider.ariaValueNow = Math.floor(audio.currentTime);
    }
  }

  function scroll() {  // before the playhead leaves the viewport
    const x = (audio.currentTime / seconds) * slider.clientWidth, left = viewport.scrollLeft;
    if (x < left || x > left + 0.95 * viewport.clientWidth) {
      viewport.scrollLeft = x - 0.1 * viewport.clientWidth;
    }
  }

  function animate() {
    update();
    scroll();
    if (!audio.paused) requestAnimationFrame(animate);
  }

  function seek(time) {
    audio.currentTime = Math.min(Math.max(time, 0), seconds);
    update();
  }

  function seekToPointer(event) {
    const box = slider.getBoundingClientRect();
    seek(((event.clientX - box.left) / box.width) * seconds);
  }

  // A touch drags the roll and seeks by tapping; a mouse or pen also seeks by dragging.
  const isDrag = (event) => event.pointerType !== "touch" && event.buttons & 1;
  slider.addEventListener("pointerdown", (event) => {
    if (isDrag(event)) slider.setPointerCapture(event.pointerId);
  });
  slider.addEventListener("pointermove", (event) => isDrag(event) && seekToPointer(event));
  slider.addEventListener("click", seekToPointer);
  const secondsByKey = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1,
    PageDown: -5, PageUp: 5, Home: -Infinity, End: Infinity };
  slider.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    if (event.key === " ") {
      if (audio.paused) audio.play().catch(() => {});  // the "error" event reports failures
      else if (!event.repeat) audio.pause();
    } else if (event.key in secondsByKey) {
      seek(audio.currentTime + secondsByKey[event.key]);
      scroll();
    } else return;
    event.preventDefault();
  });
  audio.addEventListener("play", () => {
    for (const other of document.querySelectorAll("audio")) if (other !== audio) other.pause();
    animate();
  });
  for (const name of ["seeking", "timeupdate", "ended"]) audio.addEventListener(name, update);
  audio.addEventListener("error", () => {
    sample.querySelector(".audio-error").textContent =
      "The audio can't be played. Was its file moved or deleted?";
  });
}

for (const sample of document.querySelectorAll(".sample")) {
  const audio = sample.querySelector("audio");
  if (audio) connect(sample, audio);
}
