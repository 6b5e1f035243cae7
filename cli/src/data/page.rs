//! A page to look at samples and label them: one file that asks no server. Pure.

use super::export::{Line, classes};
use std::fmt::Write as _;

const STYLE: &str = "body{font:14px system-ui,sans-serif;margin:1em}main{display:flex;flex-wrap:wrap;gap:1em}\
figure{margin:0;padding:.5em;border:1px solid #bbb;width:11em}img{width:10em;height:10em;object-fit:contain;\
image-rendering:pixelated;background:#eee}input{width:9em}small{color:#555;overflow-wrap:anywhere}\
header{position:sticky;top:0;background:#fff;padding:.5em 0}";

/// Saves what stands in the fields as a table that `import` reads. Who and when stay with a label that is as it was.
const SCRIPT: &str = "document.getElementById('save').onclick=()=>{\
const cell=text=>/[\",\\r\\n]/.test(text)?'\"'+text.replaceAll('\"','\"\"')+'\"':text;\
const row=f=>{const same=f.value===f.dataset.was;return [f.dataset.id,f.value,same?f.dataset.by:'',same?f.dataset.at:''].map(cell).join(',')};\
const rows=[...document.querySelectorAll('input')].map(row);\
const link=document.createElement('a');\
link.href=URL.createObjectURL(new Blob(['id,label,by,at\\n'+rows.join('\\n')+'\\n'],{type:'text/csv'}));\
link.download='labels.csv';link.click()}";

pub fn page(lines: &[Line]) -> String {
    let mut page = format!(
        "<!doctype html><meta charset=utf-8><title>{count} samples</title><style>{STYLE}</style>\n\
         <header>{count} samples. Fill in what they show, then <button id=save>save labels.csv</button></header>\n\
         <datalist id=known>{known}</datalist>\n<main>\n",
        count = lines.len(),
        known = classes(lines).iter().map(|class| format!("<option value=\"{}\">", escaped(class))).collect::<String>(),
    );
    for line in lines {
        figure(&mut page, line);
    }
    page + "</main>\n<script>" + SCRIPT + "</script>\n"
}

fn figure(page: &mut String, Line { row, label, file, picture }: &Line) {
    let shown = match picture {
        Some(picture) => format!("<img loading=lazy src=\"{}\" alt=\"\">", escaped(picture)),
        None => String::new(),
    };
    let said = row.prediction.map_or_else(String::new, |class| {
        format!("the model said {class}, sure to {:.0} %, ", row.score.unwrap_or_default() * 100.0)
    });
    let (value, by, at) = label
        .as_ref()
        .map_or_else(Default::default, |label| (label.value.clone(), label.by.clone(), label.at.to_string()));
    // A string takes whatever is written.
    let _ = writeln!(
        page,
        "<figure>{shown}<input list=known data-id=\"{id}\" data-was=\"{value}\" data-by=\"{by}\" data-at=\"{at}\" value=\"{value}\" placeholder=label>\
         <br><small>{said}{group}, <a href=\"{file}\">{short}</a></small></figure>",
        id = row.id,
        value = escaped(&value),
        by = escaped(&by),
        group = escaped(&row.group),
        file = escaped(file),
        short = &row.id[..8],
    );
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use sconce_lake::{Label, Row};

    #[test]
    fn what_people_wrote_is_text_and_never_markup() {
        let id = "a".repeat(64);
        let row = Row { id: id.clone(), group: "<script>door</script>".into(), prediction: Some(3), ..Row::default() };
        let label = Label {
            id,
            value: "\"7\"><b>".into(),
            by: "ann".into(),
            at: jiff::Timestamp::UNIX_EPOCH,
            file: "f".into(),
        };
        let line = Line { row, label: Some(label), file: "files/a.npy".into(), picture: None };
        let page = page(&[line]);
        assert!(page.contains("value=\"&quot;7&quot;&gt;&lt;b&gt;\""), "{page}");
        assert!(
            page.contains("the model said 3") && !page.contains("<script>door") && !page.contains("<img"),
            "{page}"
        );
        assert_eq!(page.matches("<script>").count(), 1);
    }
}
