// The recipe's [adapt] section: domain-adaptive pre-training on unlabelled text or images.
#pragma once

#include <cstdint>
#include <string>

namespace graft::adapt {

/// [adapt.images]: masked autoencoding with the settings of He et al. 2022, appendix A.1.
struct MaskedImageOptions {
  double mask_ratio = 0.75;
  bool normalise_targets = true;
  double base_learning_rate = 1.5e-4;
  double weight_decay = 0.05;
  double beta2 = 0.95;
  double warmup_fraction = 0.05;
  double smallest_crop = 0.2;
  int64_t decoder_width = 512, decoder_layers = 8, decoder_heads = 16;

  template <class Visitor>
  void visit(Visitor&& field) {
    field("mask_ratio", mask_ratio, "part of the patches that is given back from the others");
    field("normalise_targets", normalise_targets, "pixels of a patch count by their distance from its own mean");
    field("base_learning_rate", base_learning_rate, "for a batch of 256; a batch of another size in proportion");
    field("weight_decay", weight_decay, "of AdamW");
    field("beta2", beta2, "of AdamW");
    field("warmup_fraction", warmup_fraction, "part in which the learning rate rises; then it falls by a cosine");
    field("smallest_crop", smallest_crop,
          "random crops keep at least this part of the area, and are flipped; [images.augment], if enabled, is used "
          "instead");
    field("decoder_width", decoder_width, "of a decoder made fresh, where the source has none; a multiple of 4");
    field("decoder_layers", decoder_layers, "its layers");
    field("decoder_heads", decoder_heads, "its attention heads");
  }
};

struct AdaptOptions {
  std::string corpus;
  std::string text = "text";
  std::string bad_rows = "stop";
  double held_out_fraction = 0.05;
  int64_t epochs = 3;
  int64_t patience = 0;
  int64_t head_epochs = 2;
  double head_learning_rate = 1e-3;
  double learning_rate = 1e-4;     // Gururangan et al. 2020, task-adaptive
  double mask_probability = 0.15;  // Devlin et al. 2019, sec. 3.1
  bool whole_words = false;
  int64_t max_length = 128;
  int64_t max_documents = 0;
  int64_t batch_size = 32;
  MaskedImageOptions images;

  template <class Visitor>
  void visit(Visitor&& field) {
    field("corpus", corpus, "file or folder of unlabelled text, or folder or archive of images; empty: no adaptation");
    field("text", text, "column that holds the text, in JSONL and CSV");
    field("bad_rows", bad_rows, "stop at a row that cannot be used, or skip and count it");
    field("held_out_fraction", held_out_fraction, "part of the documents or images that the loss is measured on");
    field("epochs", epochs, "passes over the corpus");
    field("patience", patience, "epochs without a better held-out loss before it stops; 0: never");
    field("head_epochs", head_epochs,
          "first epochs in which a fresh language head or decoder learns alone, so that its noise does not reach the "
          "encoder "
          "(Kumar et al. 2022)");
    field("head_learning_rate", head_learning_rate, "of these");
    field("learning_rate", learning_rate,
          "of AdamW (Gururangan et al. 2020, table 13: 1e-4 for task-adaptive pre-training)");
    field("mask_probability", mask_probability, "0.15 (Devlin et al. 2019, 3.1), or 0.3 (Portes et al. 2023)");
    field("whole_words", whole_words, "mask all tokens of a word together");
    field("max_length", max_length, "tokens of a packed sequence");
    field("max_documents", max_documents, "use at most this many documents or images; 0 for all");
    field("batch_size", batch_size, "packed sequences or images of one step");
    field("images", images, "masked autoencoding, for image models (He et al. 2022)");
  }
};

}  // namespace graft::adapt
