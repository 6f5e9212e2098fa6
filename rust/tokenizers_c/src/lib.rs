//! C interface of the `tokenizers` crate, declared and explained in include/tokenizers_c.h.
//! Small on purpose: which normalizer, template or special tokens there are is decided by the tokenizer.json
//! that the caller composes. No panic crosses the boundary.

pub mod chat;

use rayon::prelude::*;
use std::ffi::{c_char, CString};
use std::panic::{catch_unwind, AssertUnwindSafe};
use tokenizers::models::bpe::BpeTrainer;
use tokenizers::models::TrainerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::utils::truncation::{
    truncate_encodings, TruncationDirection, TruncationParams, TruncationStrategy,
};
use tokenizers::{AddedToken, Encoding, PostProcessor, PostProcessorWrapper, Tokenizer};

/// The post-processor is kept apart, so that each call may truncate as it likes.
pub struct TokenizersC {
    tokenizer: Tokenizer,
    processor: Option<PostProcessorWrapper>,
    vocab_size: usize,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct Text {
    data: *const c_char,
    size: usize,
}

#[repr(C)]
pub struct Options {
    max_length: i64,
    strategy: u8,
    truncate_left: u8,
    add_special_tokens: u8,
    details: u8,
}

#[repr(C)]
pub struct Training {
    vocab_size: usize,
    min_frequency: u64,
    special: *const Text,
    special_count: usize,
}

#[derive(Default)]
struct Flat {
    starts: Vec<u64>,
    ids: Vec<i32>,
    type_ids: Vec<i32>,
    offsets: Vec<i32>,
    special: Vec<u8>,
    words: Vec<i32>,
}

#[repr(C)]
pub struct Encodings {
    rows: usize,
    total: usize,
    starts: *const u64,
    ids: *const i32,
    type_ids: *const i32,
    offsets: *const i32,
    special: *const u8,
    words: *const i32,
    owner: *mut Flat,
}

fn c_text(text: &str) -> *mut c_char {
    CString::new(text.replace('\0', "\u{fffd}"))
        .unwrap_or_default()
        .into_raw()
}

fn guarded(action: impl FnOnce() -> Result<(), String>) -> *mut c_char {
    match catch_unwind(AssertUnwindSafe(action)) {
        Ok(Ok(())) => std::ptr::null_mut(),
        Ok(Err(sentence)) => c_text(&sentence),
        Err(cause) => {
            let cause = cause.downcast_ref::<String>().cloned();
            c_text(&format!(
                "the tokenizers crate panicked: {}",
                cause.unwrap_or_else(|| "no message".into())
            ))
        }
    }
}

unsafe fn bytes<'a>(text: Text) -> &'a [u8] {
    if text.size == 0 {
        &[]
    } else {
        std::slice::from_raw_parts(text.data as *const u8, text.size)
    }
}

unsafe fn checked<'a>(text: Text, row: usize) -> Result<&'a str, String> {
    std::str::from_utf8(bytes(text)).map_err(|e| format!("text {row} is not UTF-8: {e}"))
}

impl TokenizersC {
    fn from_json(json: &[u8]) -> Result<Self, String> {
        let mut tokenizer = Tokenizer::from_bytes(json).map_err(|e| e.to_string())?;
        tokenizer.with_truncation(None).map_err(|e| e.to_string())?;
        tokenizer.with_padding(None);
        let processor = tokenizer.get_post_processor().cloned();
        tokenizer.with_post_processor(None::<PostProcessorWrapper>);
        let vocab_size = tokenizer
            .get_vocab(true)
            .values()
            .max()
            .map_or(0, |id| *id as usize + 1);
        Ok(Self {
            tokenizer,
            processor,
            vocab_size,
        })
    }

    fn added_tokens(&self, pair: bool) -> usize {
        self.processor.as_ref().map_or(0, |p| p.added_tokens(pair))
    }

    fn tokens(&self, text: &str, details: bool) -> Result<Encoding, String> {
        let encoding = if details {
            self.tokenizer.encode_char_offsets(text, false)
        } else {
            self.tokenizer.encode_fast(text, false)
        };
        encoding.map_err(|e| e.to_string())
    }

    fn truncated(
        &self,
        first: Encoding,
        second: Option<Encoding>,
        options: &Options,
    ) -> Result<(Encoding, Option<Encoding>), String> {
        let added = if options.add_special_tokens != 0 {
            self.added_tokens(second.is_some())
        } else {
            0
        };
        let room = (options.max_length as usize)
            .checked_sub(added)
            .ok_or_else(|| {
                format!(
                    "max_length {} leaves no room for the {added} special tokens",
                    options.max_length
                )
            })?;
        let params = TruncationParams {
            max_length: room,
            stride: 0,
            strategy: match options.strategy {
                1 => TruncationStrategy::OnlyFirst,
                2 => TruncationStrategy::OnlySecond,
                _ => TruncationStrategy::LongestFirst,
            },
            direction: if options.truncate_left != 0 {
                TruncationDirection::Left
            } else {
                TruncationDirection::Right
            },
        };
        let (mut first, mut second) =
            truncate_encodings(first, second, &params).map_err(|e| e.to_string())?;
        first.take_overflowing();
        if let Some(second) = second.as_mut() {
            second.take_overflowing();
        }
        Ok((first, second))
    }

    fn encode(
        &self,
        text: &str,
        pair: Option<&str>,
        options: &Options,
    ) -> Result<Encoding, String> {
        let details = options.details != 0;
        let mut first = self.tokens(text, details)?;
        let mut second = pair.map(|pair| self.tokens(pair, details)).transpose()?;
        if let Some(second) = second.as_mut() {
            second.set_type_ids(vec![1; second.len()]);
        }
        if options.max_length >= 0 {
            (first, second) = self.truncated(first, second, options)?;
        }
        match &self.processor {
            Some(processor) => processor
                .process(first, second, options.add_special_tokens != 0)
                .map_err(|e| e.to_string()),
            None => Ok(Encoding::merge(std::iter::once(first).chain(second), false)),
        }
    }
}

fn flatten(encodings: Vec<Encoding>, details: bool) -> Flat {
    let mut flat = Flat {
        starts: vec![0],
        ..Default::default()
    };
    for e in encodings {
        flat.ids.extend(e.get_ids().iter().map(|&id| id as i32));
        flat.type_ids
            .extend(e.get_type_ids().iter().map(|&id| id as i32));
        if details {
            flat.offsets.extend(
                e.get_offsets()
                    .iter()
                    .flat_map(|&(begin, end)| [begin as i32, end as i32]),
            );
            flat.special
                .extend(e.get_special_tokens_mask().iter().map(|&s| s as u8));
            flat.words
                .extend(e.get_word_ids().iter().map(|w| w.map_or(-1, |w| w as i32)));
        }
        flat.starts.push(flat.ids.len() as u64);
    }
    flat
}

#[no_mangle]
pub unsafe extern "C" fn tokenizers_c_from_json(
    json: Text,
    out: *mut *mut TokenizersC,
) -> *mut c_char {
    guarded(|| {
        *out = Box::into_raw(Box::new(TokenizersC::from_json(bytes(json))?));
        Ok(())
    })
}

#[no_mangle]
pub unsafe extern "C" fn tokenizers_c_free(tokenizer: *mut TokenizersC) {
    if !tokenizer.is_null() {
        drop(Box::from_raw(tokenizer));
    }
}

#[no_mangle]
pub unsafe extern "C" fn tokenizers_c_encode(
    tokenizer: &TokenizersC,
    texts: *const Text,
    pairs: *const Text,
    rows: usize,
    options: &Options,
    out: &mut Encodings,
) -> *mut c_char {
    guarded(|| {
        let mut inputs = Vec::with_capacity(rows);
        for row in 0..rows {
            let pair = if pairs.is_null() {
                None
            } else {
                Some(checked(*pairs.add(row), row)?)
            };
            inputs.push((checked(*texts.add(row), row)?, pair));
        }
        let encode = |&(text, pair): &(&str, Option<&str>)| tokenizer.encode(text, pair, options);
        let encodings: Result<Vec<_>, String> = if rows > 1 {
            inputs.par_iter().map(encode).collect()
        } else {
            inputs.iter().map(encode).collect()
        };
        let details = options.details != 0;
        let flat = Box::new(flatten(encodings?, details));
        let detail = |p| if details { p } else { std::ptr::null() };
        *out = Encodings {
            rows,
            total: flat.ids.len(),
            starts: flat.starts.as_ptr(),
            ids: flat.ids.as_ptr(),
            type_ids: flat.type_ids.as_ptr(),
            offsets: detail(flat.offsets.as_ptr()),
            special: if details {
                flat.special.as_ptr()
            } else {
                std::ptr::null()
            },
            words: detail(flat.words.as_ptr()),
            owner: Box::into_raw(flat),
        };
        Ok(())
    })
}

#[no_mangle]
pub unsafe extern "C" fn tokenizers_c_free_encodings(encodings: &mut Encodings) {
    if !encodings.owner.is_null() {
        drop(Box::from_raw(encodings.owner));
        encodings.owner = std::ptr::null_mut();
    }
}

#[no_mangle]
pub unsafe extern "C" fn tokenizers_c_decode(
    tokenizer: &TokenizersC,
    ids: *const u32,
    count: usize,
    skip_special_tokens: u8,
    text: *mut *mut c_char,
) -> *mut c_char {
    guarded(|| {
        let ids = if count == 0 {
            &[]
        } else {
            std::slice::from_raw_parts(ids, count)
        };
        let decoded = tokenizer
            .tokenizer
            .decode(ids, skip_special_tokens != 0)
            .map_err(|e| e.to_string())?;
        *text = c_text(&decoded);
        Ok(())
    })
}

#[no_mangle]
pub unsafe extern "C" fn tokenizers_c_train_bpe(
    json: Text,
    texts: *const Text,
    rows: usize,
    options: &Training,
    out: *mut *mut c_char,
) -> *mut c_char {
    guarded(|| {
        let mut tokenizer = Tokenizer::from_bytes(bytes(json)).map_err(|e| e.to_string())?;
        let mut special = Vec::with_capacity(options.special_count);
        for i in 0..options.special_count {
            let token = checked(*options.special.add(i), i)?;
            special.push(AddedToken::from(token, true));
        }
        let mut inputs = Vec::with_capacity(rows);
        for row in 0..rows {
            inputs.push(checked(*texts.add(row), row)?);
        }
        let bpe = BpeTrainer::builder()
            .vocab_size(options.vocab_size)
            .min_frequency(options.min_frequency)
            .special_tokens(special)
            .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
            .show_progress(false)
            .build();
        let mut trainer = TrainerWrapper::BpeTrainer(bpe);
        tokenizer
            .train(&mut trainer, inputs.into_iter())
            .map_err(|e| e.to_string())?;
        let document = tokenizer.to_string(false).map_err(|e| e.to_string())?;
        *out = c_text(&document);
        Ok(())
    })
}

#[no_mangle]
pub unsafe extern "C" fn tokenizers_c_vocab_size(tokenizer: &TokenizersC) -> usize {
    tokenizer.vocab_size
}

#[no_mangle]
pub unsafe extern "C" fn tokenizers_c_token_to_id(tokenizer: &TokenizersC, token: Text) -> i64 {
    let token = std::str::from_utf8(bytes(token)).ok();
    token
        .and_then(|token| tokenizer.tokenizer.token_to_id(token))
        .map_or(-1, i64::from)
}

#[no_mangle]
pub unsafe extern "C" fn tokenizers_c_id_to_token(tokenizer: &TokenizersC, id: u32) -> *mut c_char {
    tokenizer
        .tokenizer
        .id_to_token(id)
        .map_or(std::ptr::null_mut(), |token| c_text(&token))
}

#[no_mangle]
pub unsafe extern "C" fn tokenizers_c_added_tokens(tokenizer: &TokenizersC, pair: u8) -> usize {
    tokenizer.added_tokens(pair != 0)
}

#[no_mangle]
pub unsafe extern "C" fn tokenizers_c_free_text(text: *mut c_char) {
    if !text.is_null() {
        drop(CString::from_raw(text));
    }
}
