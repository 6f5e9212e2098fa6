// A tensor as a file holds it: name, type, shape, strides and the bytes, mapped and not copied.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace graft::io {

enum class DType { f64, f32, f16, bf16, i64, i32, i16, i8, u8, boolean };

/// Bytes of one element.
int64_t element_size(DType type);
/// "F32", "BF16", ... as safetensors writes it.
std::string dtype_name(DType type);

struct TensorView {
  DType dtype = DType::f32;
  std::vector<int64_t> shape;
  std::vector<int64_t> strides;       // in elements; row-major for safetensors
  const char* data = nullptr;         // address of element [0, 0, ...]; not necessarily aligned
  std::shared_ptr<const void> owner;  // keeps the mapping alive
  const void* storage = nullptr;      // equal for tensors that share memory (tied weights in .bin files)
};

/// "[768, 3072]"
std::string shape_text(const std::vector<int64_t>& shape);

/// The strides of a tensor whose last dimension is dense.
std::vector<int64_t> row_major(const std::vector<int64_t>& shape);

/// The product of the sizes; -1 when a size is negative or the product does not fit.
int64_t element_count(const std::vector<int64_t>& shape);

/// Tensors by name, in the order of the names.
using TensorMap = std::map<std::string, TensorView>;

}  // namespace graft::io
