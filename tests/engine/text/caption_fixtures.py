#!/usr/bin/env python3
"""Records what diffusers makes of awkward captions.

Usage: caption_fixtures.py OUT SEED
OUT/captions.json: [{"caption", "clean", "without_encoding", "lower"}, ...]: _text_preprocessing's results, and clean's with
ftfy's repair of mojibake switched off.
"""
import json
import random
import sys
import warnings

import bs4
import ftfy
from diffusers import AllegroPipeline
from diffusers.utils import is_bs4_available, is_ftfy_available

warnings.filterwarnings("ignore", category=bs4.MarkupResemblesLocatorWarning)
warnings.filterwarnings("ignore", category=bs4.XMLParsedAsHTMLWarning)

PIECES = [
    "a red panda", "An Old Sailor", "walks slowly", "by the sea", "ÉCOLE", "İstanbul", "ΟΔΥΣΣΕΥΣ", "Straße", "ǅungla", "ﬁne ﬂour",
    "https://example.com/a?b=c", "http://x.org", "www.site.co/page", "mail@example.com", "@nickname", "see example.net now", "www:/x",
    "<b>bold</b>", "<i class='x'>it</i>", "<br>", "<br/>", "</br>", "<p>para", "</p>", "<script>alert(1)</script>", "<style>p{}</style>",
    "<!-- hidden -->", "<!doctype html>", "<![CDATA[kept]]>", "<?php echo ?>", "<ruby>x<rt>y</rt></ruby>", "<pre>  two  </pre>",
    "<person>", "a < b", "3 > 2", "<3", "<a href=\"x>y\">link</a>", "<img src=x.png alt='a b'>", "<unclosed", "< b", "<a b=c/d>", "</ b>",
    "<!bogus>", "</3>", "<A\tB>", "<template><b>t</b></template>", "<input disabled value = 'q' >", "<a/ b>", "<x y='1'z>",
    "&amp;", "&quot;quoted&quot;", "&lt;tag&gt;", "&eacute;t&eacute;", "&#233;", "&#xe9;", "&#128;", "&copy 2020", "&notit;", "&unknown;",
    "&nbsp;", "&amp;amp;", "&amp;lt;b&amp;gt;", "&", "&#", "&#;", "&#x110000;", "&#0;", "&hellip;", "&ldquo;hi&rdquo;", "AT&T", "&NTILDE;",
    "%20", "%C3%A9", "%E2%82", "100%", "%zz", "a+b", "1+1=2",
    "東京タワー", "㈱", "㍿", "ｆｕｌｌ　ｗｉｄｔｈ", "ｶﾀｶﾅ", "한국어", "각", "e\u0301", "a\u0323\u0302", "Å", "\u1100\u1161\u11a8", "ﷺ",
    "–", "—", "‐", "―", "〜", "“curly”", "‘single’", "«guillemets»", "`tick`", "´", "¨", "„low“", "it’s", "ʼn",
    "192.168.0.1", "at 3:45 ", "line\\nbreak", "#123", "#1234", "#12345678", "1234567", "photo.JPG", "clip.mp4", "a.b.pdf",
    "\"\"\"AUSVERKAUFT\"\"\"", "wait...", "***SALE***", "(in parens)", "[brackets]", "{x|y}", "a / b", "back\\slash", "~", "®", "™", "§ 5",
    "this-is-my-cute-cat", "snake_case_words_here_now", "one-two", "jc6640", "jc6640vc", "6640vc231", "j2d1a2a", "free shipping",
    "worldwide free shipping", "download free", "free download", "click for more", "click on link", "png image", "jpg", "page 12",
    "1920x1080", "10×20", "5х7", "3.5x2.", "4k", "8K!!", "word :  next", "a,b", "end.Start", "x/y", " . ", "  spaces   many  ",
    "\t\ttabs", "line\nbreak", "\r\n", "\u2028", "\u00a0", "\u200b", "\ufeff", "\x07", "\x1b[31mred\x1b[0m", "\u0085", "'quoted'", "_start", "-start",
    ":colon", "end-", "end_", "end:", "end+", ".hidden", "emoji 🎬", "👩‍🚀", "٣٤٥", "²³", "Ⅷ", "Ⓐ", "ΣΑΣ", "ß", "ſ", "K", "naïve café", "Ǆ", "ŉ",
]
MOJIBAKE = ["doÃ±a", "cafÃ© crÃ¨me", "â€œquotedâ€\x9d", "itâ€™s", "schÃ¶n", "Ã¼ber", "Ð¿Ñ€Ð¸Ð²ÐµÑ‚", "â€¦", "voilÃ  le travail", "l’humanitÃ©"]


def captions(rng):
    out = list(PIECES) + ["", " ", "\n"]
    out += [f"{piece} {piece}" for piece in ("<br>", "&amp;", "ΣΑΣ", "</br>", "#123")]
    while len(out) < 2000:
        joint = rng.choice([" ", " ", " ", "", ", ", "\n"])
        out.append(joint.join(rng.choice(PIECES) for _ in range(rng.randint(2, 7))))
    for _ in range(100):
        parts = [rng.choice(PIECES) for _ in range(rng.randint(1, 3))] + [rng.choice(MOJIBAKE)]
        rng.shuffle(parts)
        out.append(" ".join(parts))
    return out


def main():
    assert is_bs4_available() and is_ftfy_available()
    rng = random.Random(int(sys.argv[2]))
    pipeline = AllegroPipeline.__new__(AllegroPipeline)
    prepare = pipeline._text_preprocessing
    fix_text = ftfy.fix_text
    out = []
    for caption in captions(rng):
        ftfy.fix_text = fix_text
        try:
            clean = prepare(caption, clean_caption=True)[0]
        except bs4.exceptions.ParserRejectedMarkup:
            continue
        ftfy.fix_text = lambda text: fix_text(text, fix_encoding=False)
        without = prepare(caption, clean_caption=True)[0]
        out.append({"caption": caption, "clean": clean, "without_encoding": without, "lower": prepare(caption)[0]})
    with open(sys.argv[1] + "/captions.json", "w", encoding="utf-8") as file:
        json.dump(out, file)


main()
