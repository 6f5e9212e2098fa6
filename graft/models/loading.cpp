#include "graft/models/loading.h"

#include <algorithm>
#include <cstring>
#include <functional>

#include "graft/core/error.h"
#include "graft/io/file.h"

namespace graft::models {
namespace {

bool is_floating(io::DType type) {
  return type == io::DType::f64 || type == io::DType::f32 || type == io::DType::f16 || type == io::DType::bf16;
}

/// Names of norms as TensorFlow conversions of 2018 and 2019 wrote them.
std::string modern(std::string key) {
  for (const auto& [old_name, name] :
       {std::pair{"LayerNorm.gamma", "LayerNorm.weight"}, std::pair{"LayerNorm.beta", "LayerNorm.bias"}})
    if (key.ends_with(old_name)) key = key.substr(0, key.size() - std::strlen(old_name)) + name;
  return key;
}

bool fits(const KeyRule& rule, const std::string& key) {
  return rule.pattern.starts_with('*') ? key.ends_with(rule.pattern.substr(1)) : key.starts_with(rule.pattern);
}

/// The spellings under which a key may be known: as it is, and with the backbone's prefix added or taken off.
std::vector<std::string> spellings(const std::string& key, const std::string& prefix) {
  std::vector<std::string> names{key, prefix + "." + key};
  if (key.starts_with(prefix + ".")) names.push_back(key.substr(prefix.size() + 1));
  return names;
}

std::string described(const std::string& key, c10::IntArrayRef shape) {
  return key + " " + io::shape_text(shape.vec());
}

void check_finite(const std::string& name, const Tensor& tensor) {
  // One pass: a sum over NaN or infinity is not finite. A finite tensor's sum may overflow, so then each value is looked at.
  if (!std::isfinite(tensor.sum(torch::kFloat32).item<double>()))
    GRAFT_CHECK(model, tensor.isfinite().all().item<bool>(),
                "{}: holds NaN or infinite values. The file is damaged or its training diverged; use another.", name);
}

bool is_aligned(const io::TensorView& view) {
  return reinterpret_cast<uintptr_t>(view.data) % io::element_size(view.dtype) == 0;
}

struct Loader {
  Model& model;
  const Architecture& architecture;
  std::string where;
  bool fresh_head, keep_head;
  const MappedFiles& mapped;
  torch::OrderedDict<std::string, Tensor> targets;
  LoadReport report = {};
  std::vector<std::string> unused = {}, misshapen = {};
  std::set<std::string> found_otherwise = {};                            // of another shape
  std::map<const io::MappedFile*, std::shared_ptr<char>> mappings = {};  // this model's own, to be written

  bool is_head(const std::string& key) const { return model.group_of(key) == "head"; }

  Tensor value_of(const std::string& name, const io::TensorView& view, torch::Dtype wanted) {
    const auto file = std::find_if(mapped.begin(), mapped.end(), [&](const auto& one) {
      const auto* begin = one->bytes().data();
      return std::less_equal<>()(begin, view.data) && std::less<>()(view.data, begin + one->bytes().size());
    });
    if (file == mapped.end() || scalar_type(view.dtype) != wanted || !is_aligned(view) || view.shape.empty() ||
        io::element_count(view.shape) == 0)
      return to_tensor(name, view).to(wanted);
    auto& mapping = mappings[file->get()];
    if (!mapping) mapping = (*file)->writable_copy();
    const auto tensor = torch::from_blob(
        mapping.get() + (view.data - (*file)->bytes().data()), view.shape, [mapping](void*) {}, wanted);
    if (tensor.is_floating_point()) check_finite(name, tensor);
    return tensor;
  }

  /// True when the key names a parameter or buffer, which then is filled.
  bool fill(const std::string& file_key, const std::string& key, const io::TensorView& view) {
    for (const auto& name : spellings(key, architecture.prefix)) {
      auto* target = targets.find(name);
      if (!target || report.key_in_file.contains(name)) continue;
      if (target->sizes().vec() != view.shape) {
        if (is_head(name) && fresh_head) return report.dropped.push_back(file_key), true;
        found_otherwise.insert(name);
        misshapen.push_back(fmt::format("{}: the model wants {}, the file has {}", name,
                                        io::shape_text(target->sizes().vec()), io::shape_text(view.shape)));
        return true;
      }
      if (!keep_head && is_head(name) && !name.starts_with(architecture.prefix + "."))
        return report.dropped.push_back(file_key), true;
      torch::NoGradGuard no_grad;
      const auto value = value_of(file_key, view, target->scalar_type());
      if (value.device() == target->device()) target->set_data(value);
      else target->copy_(value);
      report.key_in_file[name] = file_key;
      return true;
    }
    return false;
  }

  bool dropped_by_rule(const std::string& key) const {
    const auto names = spellings(key, architecture.prefix);
    return std::any_of(architecture.rules.begin(), architecture.rules.end(), [&](const auto& rule) {
      return rule.what == KeyRule::What::drop &&
             std::any_of(names.begin(), names.end(), [&](const auto& n) { return fits(rule, n); });
    });
  }

  std::string renamed(const std::string& key) const {
    for (const auto& name : spellings(key, architecture.prefix))
      if (targets.contains(name)) return key;
    for (const auto& rule : architecture.rules)
      if (rule.what == KeyRule::What::rename && fits(rule, key))
        return rule.replacement + key.substr(rule.pattern.size());
    return key;
  }

  /// An alias of a tied parameter: fills it when the file has only the alias, else must equal it.
  void tie(const std::string& alias, const std::string& parameter, const io::TensorMap& tensors) {
    const auto found = tensors.find(alias);
    auto* target = targets.find(parameter);
    if (found == tensors.end() || !target) return;
    if (targets.contains(alias)) return;  // untied here: a parameter of its own
    if (!report.key_in_file.contains(parameter)) {
      fill(alias, parameter, found->second);
      return;
    }
    if (model.head->uses().empty() && architecture.language_task == "causal_lm") {
      report.dropped.push_back(alias);  // the language head is not in this model, whether it was tied or not
      return;
    }
    const auto other = to_tensor(alias, found->second);
    GRAFT_CHECK(model, other.sizes() == target->sizes() && other.equal(target->detach()),
                "{}: {} differs from {}, which it is tied to. graft computes this head with tied weights only; use a "
                "file where they are equal.",
                where, alias, report.key_in_file[parameter]);
  }
};

}  // namespace

torch::Dtype scalar_type(io::DType type) {
  switch (type) {
    case io::DType::f64:
      return torch::kFloat64;
    case io::DType::f32:
      return torch::kFloat32;
    case io::DType::f16:
      return torch::kFloat16;
    case io::DType::bf16:
      return torch::kBFloat16;
    case io::DType::i64:
      return torch::kInt64;
    case io::DType::i32:
      return torch::kInt32;
    case io::DType::i16:
      return torch::kInt16;
    case io::DType::i8:
      return torch::kInt8;
    case io::DType::u8:
      return torch::kUInt8;
    case io::DType::boolean:
      return torch::kBool;
  }
  GRAFT_ASSERT(false);
  return torch::kFloat32;
}

io::DType file_type(torch::Dtype type) {
  for (const auto candidate : {io::DType::f64, io::DType::f32, io::DType::f16, io::DType::bf16, io::DType::i64,
                               io::DType::i32, io::DType::i16, io::DType::i8, io::DType::u8, io::DType::boolean})
    if (scalar_type(candidate) == type) return candidate;
  GRAFT_ASSERT(false, "a tensor type that safetensors does not have");
  return io::DType::f32;
}

Tensor to_tensor(const std::string& name, const io::TensorView& view) {
  const auto type = torch::TensorOptions().dtype(scalar_type(view.dtype));
  int64_t last = 0;
  for (size_t i = 0; i < view.shape.size(); ++i) {
    if (view.shape[i] == 0) return torch::empty(view.shape, type);
    last += (view.shape[i] - 1) * view.strides[i];
  }
  Tensor span;
  if (is_aligned(view)) {
    span = torch::from_blob(const_cast<char*>(view.data), {last + 1}, type);
  } else {  // files do not promise it
    span = torch::empty({last + 1}, type);
    std::memcpy(span.data_ptr(), view.data, (last + 1) * io::element_size(view.dtype));
  }
  const bool floating = is_floating(view.dtype);
  auto tensor = torch::empty(view.shape, floating ? type.dtype(torch::kFloat32) : type);
  tensor.copy_(span.as_strided(view.shape, view.strides));
  if (floating) check_finite(name, tensor);
  return tensor;
}

io::TensorView to_view(const Tensor& tensor) {
  GRAFT_ASSERT(tensor.is_contiguous() && tensor.device().is_cpu());
  io::TensorView view;
  view.dtype = file_type(tensor.scalar_type());
  view.shape = tensor.sizes().vec();
  view.strides = tensor.strides().vec();
  view.data = static_cast<const char*>(tensor.const_data_ptr());
  view.owner = std::make_shared<Tensor>(tensor);
  view.storage = view.data;
  return view;
}

io::TensorMap to_views(const std::map<std::string, Tensor>& tensors) {
  io::TensorMap views;
  for (const auto& [name, tensor] : tensors) views[name] = to_view(tensor.detach().cpu().contiguous());
  return views;
}

LoadReport load_weights(Model& model, const Architecture& architecture, const io::TensorMap& tensors,
                        const std::string& where, bool fresh_head, bool keep_head, const MappedFiles& mapped) {
  Loader loader{model, architecture, where, fresh_head, keep_head, mapped, model.parameters_by_key()};
  for (const auto& item : model.buffers_by_key()) loader.targets.insert(item.key(), item.value());

  for (const auto& [key, view] : tensors) {
    const bool alias = std::any_of(architecture.tied.begin(), architecture.tied.end(),
                                   [&](const auto& t) { return t.first == key; }) &&
                       !loader.targets.contains(key);
    if (alias || loader.fill(key, loader.renamed(modern(key)), view)) continue;
    if (loader.dropped_by_rule(key)) loader.report.dropped.push_back(key);
    else loader.unused.push_back(described(key, view.shape));
  }
  for (const auto& [alias, parameter] : architecture.tied) loader.tie(alias, parameter, tensors);

  std::vector<std::string> missing;
  for (const auto& item : loader.targets) {
    if (loader.report.key_in_file.contains(item.key()) || loader.found_otherwise.contains(item.key())) continue;
    if (item.key().ends_with(".num_batches_tracked")) continue;  // a counter that older files do not have
    if (fresh_head && loader.is_head(item.key())) loader.report.fresh.push_back(item.key());
    else missing.push_back(described(item.key(), item.value().sizes()));
  }
  if (missing.empty() && loader.unused.empty() && loader.misshapen.empty()) return loader.report;

  std::string text = fmt::format("{}: does not fit `{}` as config.json describes it", where, architecture.model_type);
  if (!missing.empty()) text += fmt::format("\n  missing ({}): {}", missing.size(), listed(missing));
  if (!loader.unused.empty()) text += fmt::format("\n  unused ({}): {}", loader.unused.size(), listed(loader.unused));
  if (!loader.misshapen.empty())
    text += fmt::format("\n  other shape ({}): {}", loader.misshapen.size(), listed(loader.misshapen));
  throw Error(Kind::model, text + "\nCheck that config.json belongs to these weights (layers, sizes, model_type).");
}

}  // namespace graft::models
