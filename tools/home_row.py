"The row of the home page under each boundary, as HTML that needs a few lines of JavaScript and no network."
from html import escape

BOUNDARIES = ("split", "whole", "axolotl")
CAPTION = ("Each box is a token of Mistral’s, with its label and id; green is trained, grey is masked with label -100. "
           "An orange mark is a space that the tokenizer adds, a red box a token that is half in the prompt.")
PLACES = {"the space begins the answer": 0, "the space ends the prompt": 1}
SCRIPT = """<script>
(() => {
  const figure = document.querySelector(".home-row"), chosen = name => figure.querySelector(`[name=${name}]:checked`).value;
  const draw = () => {
    const wanted = `${chosen("boundary")} ${chosen("place")}`;
    for (const o of figure.querySelectorAll("[data-row]")) o.hidden = o.dataset.row !== wanted;
  };
  figure.addEventListener("change", draw);
  figure.querySelector(".choices").hidden = false;
})();
</script>"""

def moved(row):
    "The row, and the same with the space of its answer at the end of its prompt"
    (prompt, a), (answer, b) = row
    return [row, [(prompt + " ", a), (answer.removeprefix(" "), b)]]

def token_box(token):
    kinds = ["row-token", "is-trained" if token.trained else "is-masked", *["is-crossing"] * bool(token.n_crossed)]
    text = "".join(f'<span class="row-added">{escape(t)}</span>' if kind == "added" else escape(t) for t, kind in token.shown)
    numbers = "".join(f'<span class="row-number">{n}</span>' for n in (token.label, token.id))
    return f'<span class="{" ".join(kinds)}"><span class="row-text">{text}</span>{numbers}</span>'

def laws(encoder, segments):
    "What holds for a row, as list items"
    from segtune.laws import label_law, prompt_law, text_law
    batch = encoder.encode([segments], spans=True)
    for name, law in (("text", text_law), ("label", label_law), ("prompt", prompt_law)):
        found = law(encoder, batch)
        says = f"<b>{name} law is broken</b>: {escape(found[0].message)}" if found else f"<b>{name} law holds</b>"
        yield f'<li class="law-{"broken" if found else "holds"}">{says}</li>'

def panel(row, boundary, name, hidden):
    import segtune as st
    from segtune.encoder import Encoder
    from segtune.segments import Segment
    tok = st.load_tokenizer("bundled:mistral-v0.1")
    tokens = st.show(row, tok, boundary=boundary).tokens
    boxes = "\n".join(map(token_box, tokens))
    lines = "\n".join(laws(Encoder(tok, boundary), [Segment(*o) for o in row]))
    return (f'<div data-row="{name}"{" hidden" * hidden}>\n<div class="row-tokens">\n{boxes}\n</div>\n'
            f'<ul class="row-laws">\n{lines}\n</ul>\n</div>')

def choice(title, name, options):
    def radio(i, value, text):
        return f'<label><input type="radio" name="{name}" value="{value}"{" checked" * (i == 0)}>{text}</label>'
    radios = "".join(radio(i, value, text) for i, (text, value) in enumerate(options.items()))
    return f'<fieldset class="choice"><legend>{title}</legend>{radios}</fieldset>'

def html(row):
    "The whole figure"
    rows = moved(row)
    panels = [panel(o, b, f"{b} {i}", hidden=(b, i) != ("split", 0)) for b in BOUNDARIES for i, o in enumerate(rows)]
    choices = choice("Boundary", "boundary", {o: o for o in BOUNDARIES}) + choice("Where is the space?", "place", PLACES)
    return "\n".join(['<figure class="home-row">', f'<div class="choices" hidden>{choices}</div>', *panels,
                      f'<figcaption>{CAPTION} <a href="guides/playground.html">Try your own text</a>.</figcaption>', "</figure>", SCRIPT])
