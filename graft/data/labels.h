// Names of labels and their indices.
#pragma once

#include <filesystem>
#include <string>
#include <unordered_map>
#include <vector>

#include "graft/core/json.h"

namespace graft::data {

/// The text of a JSON string, integer or boolean.
struct LabelText {
  bool ok = false;
  std::string text;  // the label, or what was found instead
};
LabelText label_text(const Json& value);

/// Numbers in numeric order before all other names; those as text, but with digits compared as numbers: "b2" before "b10".
bool natural_less(const std::string& a, const std::string& b);

class LabelNames {
 public:
  /// Open: names are taken as they come. With names: closed, others are refused.
  explicit LabelNames(const std::vector<std::string>& names);
  /// The index of a label, new names included while open; -1 when closed and unknown.
  int64_t index(const std::string& name, const std::filesystem::path& file, int64_t row);
  /// Sorts and closes. Returns the new index of each old one. Kind::data for names that differ only in case or blanks.
  std::vector<int64_t> close();
  /// "the label is not among those of training: a, b; did you mean ...".
  std::string unknown_sentence(const std::string& name) const;
  const std::vector<std::string>& names() const { return names_; }
  bool open() const { return open_; }

 private:
  std::vector<std::string> names_;
  std::vector<std::string> places_;  // where each was seen first
  std::unordered_map<std::string, int64_t> indices_;
  bool open_ = true;
};

}  // namespace graft::data
