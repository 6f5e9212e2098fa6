// Weights from a file into a model, totally: each tensor of the file is used or dropped by a rule, each parameter is
// filled or declared fresh. Otherwise one error lists both sides with their shapes.
#pragma once

#include "graft/io/checkpoint.h"
#include "graft/models/architectures.h"

namespace graft::models {

torch::Dtype scalar_type(io::DType type);
/// Throws a bug for types that safetensors does not have (complex).
io::DType file_type(torch::Dtype type);

/// A copy in memory; all floating types become float32, integers stay. Throws Kind::model naming the tensor when a value is
/// NaN or infinite.
Tensor to_tensor(const std::string& name, const io::TensorView& view);
/// A view of a tensor's bytes for the safetensors writer; the tensor must be contiguous, on the CPU, and outlive the view.
io::TensorView to_view(const Tensor& tensor);
/// Views of contiguous CPU copies; keeps what it needs alive.
io::TensorMap to_views(const std::map<std::string, Tensor>& tensors);

struct LoadReport {
  std::map<std::string, std::string> key_in_file;  // parameter -> key
  std::vector<std::string> fresh;                  // parameters of the head that the file does not have
  std::vector<std::string> dropped;                // keys that a rule dropped
};

/// Files of which tensors may become parameters as they lie there; each tensor has bytes of its own.
using MappedFiles = std::vector<std::shared_ptr<const io::MappedFile>>;

/// Gives the model's parameters and buffers the file's values, in the type that they have in the model. Tensors that a
/// file of `mapped` holds in that type are not copied: the parameter becomes a view of a mapping of the file
/// (MappedFile::writable_copy, one for this model), whose pages are the file's until they are trained. Others are converted
/// one after another.
/// `fresh_head`: parameters of the head that are missing, or have another shape in the file, keep their fresh values.
/// `keep_head` false: so does all of the head but what was pretrained with the backbone (a pooler under its prefix).
/// Throws Kind::model naming `where`: missing and unused tensors with shapes, a tied alias that differs, NaN.
LoadReport load_weights(Model& model, const Architecture& architecture, const io::TensorMap& tensors,
                        const std::string& where, bool fresh_head, bool keep_head = true,
                        const MappedFiles& mapped = {});

}  // namespace graft::models
