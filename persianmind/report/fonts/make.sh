#!/usr/bin/env bash
# Makes vazirmatn-arabic.woff2 and OFL.txt again: the letters, marks, digits and punctuation of Arabic script from
# Vazirmatn (github.com/rastikerdar/vazirmatn, SIL Open Font License 1.1). Needs npm and fonttools with brotli.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
npm pack --silent vazirmatn@33.0.3
tar xzf vazirmatn-33.0.3.tgz
python3 -m fontTools.subset package/fonts/ttf/Vazirmatn-Regular.ttf \
  --unicodes=U+0020,U+00A0,U+00AB,U+00BB,U+060C,U+061B,U+061F,U+0621-063A,U+0640-0655,U+0660-066D,U+0670,U+0671,U+0679,U+067E,U+0686,U+0688,U+0691,U+0698,U+06A9,U+06AF,U+06BA,U+06BE,U+06C0-06C3,U+06CC,U+06D2-06D5,U+06F0-06F9,U+200C-200F \
  --layout-features=ccmp,isol,init,medi,fina,rlig,calt,liga,mark,mkmk,kern,curs \
  --no-hinting --desubroutinize --flavor=woff2 --output-file="$here/vazirmatn-arabic.woff2"
cp package/OFL.txt "$here/OFL.txt"
