// Small pictures on white, drawn here in the manner of emoji: sources that the translator knows.
const disc = (pen, x, y, r, colour) => { pen.fillStyle = colour; pen.beginPath(); pen.arc(x, y, r, 0, 7); pen.fill(); };
const shape = (pen, colour, path) => { pen.fillStyle = colour; pen.fill(new Path2D(path)); };
const line = (pen, colour, width, path) => { Object.assign(pen, { strokeStyle: colour, lineWidth: width }); pen.stroke(new Path2D(path)); };

const face = (eyes) => (pen) => {
  disc(pen, 32, 32, 27, "#f0a92c");
  disc(pen, 32, 31, 26, "#ffcf42");
  eyes(pen);
};
const ALL = {
  smile: face((pen) => {
    for (const x of [22, 42]) { pen.fillStyle = "#5a3a14"; pen.beginPath(); pen.ellipse(x, 26, 3.4, 5, 0, 0, 7); pen.fill(); }
    shape(pen, "#7a3320", "M15 37 Q32 42 49 37 Q47 53 32 53 Q17 53 15 37Z");
    shape(pen, "#ffffff", "M17 38.5 Q32 43 47 38.5 L46 42.5 Q32 46 18 42.5Z");
  }),
  cool: face((pen) => {
    shape(pen, "#26292f", "M8 20 H56 V24 Q54 36 44 36 Q35 36 33 26 H31 Q29 36 20 36 Q10 36 8 24Z");
    line(pen, "#7a3320", 3, "M21 44 Q32 53 43 43");
  }),
  heart: (pen) => {
    shape(pen, "#d9303e", "M32 57 C4 37 3 24 8 16 C15 6 28 9 32 19 C36 9 49 6 56 16 C61 24 60 37 32 57Z");
    shape(pen, "#f4808a", "M13 20 C16 14 21 13 24 15 C20 17 17 21 16 26 C13 25 12 23 13 20Z");
  },
  fruit: (pen) => {
    shape(pen, "#cf2f35", "M32 20 C24 12 8 16 8 34 C8 50 20 60 27 58 Q32 56 37 58 C44 60 56 50 56 34 C56 16 40 12 32 20Z");
    line(pen, "#6b4226", 3.4, "M32 20 Q31 11 36 5");
    shape(pen, "#5da130", "M35 14 Q40 4 54 7 Q50 18 35 14Z");
    shape(pen, "#f0888a", "M15 28 Q16 20 24 20 Q18 25 18 33 Q15 32 15 28Z");
  },
  star: (pen) => {
    shape(pen, "#f2a71e", "M32 4 L40.5 23 L61 25.5 L45.5 39.5 L50 60 L32 49.500 L14 60 L18.500 39.5 L3 25.500 L23.500 23Z");
    shape(pen, "#ffd34d", "M32 10 L39 26 L56 28 L43 39.500 L47 55 L32 46.500 L17 55 L21 39.500 L8 28 L25 26Z");
  },
  panda: (pen) => {
    for (const x of [13, 51]) disc(pen, x, 15, 9, "#2b2d33");
    disc(pen, 32, 34, 25, "#d3d6da");
    disc(pen, 32, 33, 24, "#f7f7f5");
    for (const [x, turn] of [[21, 0.5], [43, -0.5]]) { pen.fillStyle = "#2b2d33"; pen.beginPath(); pen.ellipse(x, 31, 6, 8, turn, 0, 7); pen.fill(); }
    for (const x of [22, 42]) disc(pen, x, 30, 2.2, "#ffffff");
    shape(pen, "#2b2d33", "M27 42 H37 Q36 48 32 48 Q28 48 27 42Z");
  },
};

// Pixels of all drawings, side `size`.
export function drawings(size) {
  return Object.values(ALL).map((draw) => {
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = size;
    const pen = canvas.getContext("2d", { willReadFrequently: true });
    pen.fillStyle = "#fff";
    pen.fillRect(0, 0, size, size);
    pen.scale(size / 64, size / 64);
    pen.lineCap = "round";
    draw(pen);
    return pen.getImageData(0, 0, size, size);
  });
}
