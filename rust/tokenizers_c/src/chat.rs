//! Chat templates: conversations become the text that a model was trained on, by the Jinja program beside its tokenizer.
//! Source: transformers, utils/chat_template_utils.py: blocks trimmed, loop controls, raise_exception, strftime_now, its
//! own tojson, Python's methods, and `{% generation %}` around what the model is to say.

use crate::{bytes, c_text, guarded, Text};
use minijinja::value::{Kwargs, Value};
use minijinja::{Environment, Error, ErrorKind, Output, State};
use serde::Serialize;
use std::ffi::c_char;

/// Noncharacters of Unicode, which no text holds: around what stood between generation tags.
const MARKS: [&str; 2] = ["\u{fdd0}", "\u{fdd1}"];

pub struct ChatTemplateC {
    environment: Environment<'static>,
    marks_answers: bool,
}

const NAME: &str = "chat_template";

/// The tag that begins at `{%`: its end, and which of the two it is.
fn generation_tag(text: &str) -> Option<(usize, usize, &str, &str)> {
    let end = text.find("%}")? + 2;
    let inner = &text[2..end - 2];
    let before = if inner.starts_with('-') { "-" } else { "" };
    let after = if inner.ends_with('-') { "-" } else { "" };
    match inner.trim_matches('-').trim() {
        "generation" => Some((end, 0, before, after)),
        "endgeneration" => Some((end, 1, before, after)),
        _ => None,
    }
}

/// A tag becomes a statement that prints a mark, so that blanks around it are trimmed as around the tag.
fn with_marks(source: &str) -> (String, bool) {
    let mut result = String::new();
    let mut rest = source;
    let mut found = false;
    while let Some(start) = rest.find("{%") {
        result.push_str(&rest[..start]);
        rest = &rest[start..];
        if let Some((end, which, before, after)) = generation_tag(rest) {
            let mark = MARKS[which];
            result.push_str(&format!(
                "{{%{before} if true %}}{{{{ \"{mark}\" }}}}{{% endif {after}%}}"
            ));
            rest = &rest[end..];
            found = true;
        } else {
            result.push_str("{%");
            rest = &rest[2..];
        }
    }
    result.push_str(rest);
    (result, found)
}

/// As Python's json.dumps writes: ", " and ": " unless told otherwise.
struct Separators(String, String);

impl serde_json::ser::Formatter for Separators {
    fn begin_array_value<W: ?Sized + std::io::Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        if first {
            return Ok(());
        }
        writer.write_all(self.0.as_bytes())
    }
    fn begin_object_key<W: ?Sized + std::io::Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        self.begin_array_value(writer, first)
    }
    fn begin_object_value<W: ?Sized + std::io::Write>(
        &mut self,
        writer: &mut W,
    ) -> std::io::Result<()> {
        writer.write_all(self.1.as_bytes())
    }
}

fn sorted(value: serde_json::Value) -> serde_json::Value {
    match value {
        serde_json::Value::Object(object) => {
            let mut items: Vec<_> = object.into_iter().collect();
            items.sort_by(|a, b| a.0.cmp(&b.0));
            serde_json::Value::Object(items.into_iter().map(|(k, v)| (k, sorted(v))).collect())
        }
        serde_json::Value::Array(items) => {
            serde_json::Value::Array(items.into_iter().map(sorted).collect())
        }
        other => other,
    }
}

fn escaped(text: &str) -> String {
    let mut result = String::new();
    for c in text.chars() {
        if c.is_ascii() {
            result.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                result.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    result
}

fn tojson(value: Value, kwargs: Kwargs) -> Result<String, Error> {
    let indent: Option<usize> = kwargs.get("indent")?;
    let ascii: Option<bool> = kwargs.get("ensure_ascii")?;
    let sort: Option<bool> = kwargs.get("sort_keys")?;
    let separators: Option<Vec<String>> = kwargs.get("separators")?;
    kwargs.assert_all_used()?;
    let failed = |e: serde_json::Error| Error::new(ErrorKind::BadSerialization, e.to_string());
    let mut json = serde_json::to_value(&value).map_err(failed)?;
    if sort.unwrap_or(false) {
        json = sorted(json);
    }
    let mut out = Vec::new();
    if let Some(indent) = indent {
        let blanks = vec![b' '; indent];
        let formatter = serde_json::ser::PrettyFormatter::with_indent(&blanks);
        json.serialize(&mut serde_json::Serializer::with_formatter(
            &mut out, formatter,
        ))
        .map_err(failed)?;
    } else {
        let pair = separators.unwrap_or_default();
        let part = |i: usize, otherwise: &str| pair.get(i).cloned().unwrap_or(otherwise.into());
        json.serialize(&mut serde_json::Serializer::with_formatter(
            &mut out,
            Separators(part(0, ", "), part(1, ": ")),
        ))
        .map_err(failed)?;
    }
    let text = String::from_utf8(out)
        .map_err(|e| Error::new(ErrorKind::BadSerialization, e.to_string()))?;
    Ok(if ascii.unwrap_or(false) {
        escaped(&text)
    } else {
        text
    })
}

fn raise_exception(message: String) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message))
}

/// Python's words for none and truth.
fn formatter(out: &mut Output, state: &State, value: &Value) -> Result<(), Error> {
    use minijinja::value::ValueKind;
    let word = match value.kind() {
        ValueKind::None => "None",
        ValueKind::Bool if value.is_true() => "True",
        ValueKind::Bool => "False",
        _ => return minijinja::escape_formatter(out, state, value),
    };
    out.write_str(word).map_err(Error::from)
}

fn strftime(seconds: i64, format: &str) -> Result<String, Error> {
    use std::fmt::Write;
    let refused = || {
        Error::new(
            ErrorKind::InvalidOperation,
            format!("strftime_now does not know the format {format:?}"),
        )
    };
    let time = chrono::DateTime::from_timestamp(seconds, 0).ok_or_else(refused)?;
    let mut text = String::new();
    write!(text, "{}", time.naive_utc().format(format)).map_err(|_| refused())?;
    Ok(text)
}

/// What went wrong without the place in the program, for messages that the template raises itself are for people.
fn sentence(error: &Error) -> String {
    let what = error
        .detail()
        .map_or(error.kind().to_string(), String::from);
    match error.line() {
        Some(line) => format!("{what} (line {line} of the template)"),
        None => what,
    }
}

impl ChatTemplateC {
    fn new(source: &str, now: i64) -> Result<Self, String> {
        let (source, marks_answers) = with_marks(source);
        let mut environment = Environment::new();
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment
            .set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.set_formatter(formatter);
        environment.add_filter("tojson", tojson);
        environment.add_function("raise_exception", raise_exception);
        environment.add_function("strftime_now", move |format: String| strftime(now, &format));
        environment
            .add_template_owned(NAME, source)
            .map_err(|e| sentence(&e))?;
        Ok(Self {
            environment,
            marks_answers,
        })
    }

    fn render(&self, context: &[u8]) -> Result<String, String> {
        let context: serde_json::Value =
            serde_json::from_slice(context).map_err(|e| e.to_string())?;
        self.environment
            .get_template(NAME)
            .and_then(|template| template.render(&context))
            .map_err(|e| sentence(&e))
    }
}

#[no_mangle]
pub unsafe extern "C" fn tokenizers_c_chat_template(
    source: Text,
    now: i64,
    out: *mut *mut ChatTemplateC,
) -> *mut c_char {
    guarded(|| {
        let source = std::str::from_utf8(bytes(source)).map_err(|e| e.to_string())?;
        *out = Box::into_raw(Box::new(ChatTemplateC::new(source, now)?));
        Ok(())
    })
}

#[no_mangle]
pub unsafe extern "C" fn tokenizers_c_chat_template_free(template: *mut ChatTemplateC) {
    if !template.is_null() {
        drop(Box::from_raw(template));
    }
}

#[no_mangle]
pub unsafe extern "C" fn tokenizers_c_chat_marks_answers(template: &ChatTemplateC) -> u8 {
    template.marks_answers as u8
}

#[no_mangle]
pub unsafe extern "C" fn tokenizers_c_chat_render(
    template: &ChatTemplateC,
    context: Text,
    text: *mut *mut c_char,
) -> *mut c_char {
    guarded(|| {
        *text = c_text(&template.render(bytes(context))?);
        Ok(())
    })
}
