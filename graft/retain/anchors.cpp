#include "graft/retain/anchors.h"

#include <algorithm>

#include "graft/core/error.h"
#include "graft/io/safetensors.h"
#include "graft/models/loading.h"

namespace graft::retain {

Anchors anchors_at(const models::Model& model, const std::map<std::string, Tensor>& fisher,
                   const std::vector<std::string>& fresh) {
  Anchors anchors;
  for (const auto& item : model.parameters_by_key()) {
    if (std::find(fresh.begin(), fresh.end(), item.key()) != fresh.end()) continue;
    const auto found = fisher.find(item.key());
    if (!fisher.empty() && found == fisher.end()) continue;
    anchors.of[item.key()] = {item.value().detach().clone(), found == fisher.end() ? Tensor() : found->second};
  }
  return anchors;
}

Anchors accumulated(const Anchors& before, const Anchors& now, double decay) {
  auto all = now;
  for (const auto& [key, old] : before.of) {
    const auto found = all.of.find(key);
    if (found == all.of.end()) all.of[key] = {old.at, old.fisher.defined() ? old.fisher * decay : old.fisher};
    else if (found->second.at.sizes() == old.at.sizes() && old.fisher.defined() && found->second.fisher.defined())
      found->second.fisher = found->second.fisher + decay * old.fisher;
  }
  all.domains = before.domains;
  for (const auto& domain : now.domains) all.domains.push_back(domain);
  return all;
}

void write_anchors(const std::filesystem::path& file, const Anchors& anchors) {
  std::map<std::string, Tensor> tensors;
  for (const auto& [key, anchor] : anchors.of) {
    tensors["anchor." + key] = anchor.at;
    if (anchor.fisher.defined()) tensors["fisher." + key] = anchor.fisher;
  }
  io::write_safetensors(file, models::to_views(tensors), {{"format", "pt"}, {"domains", anchors.domains.dump()}});
}

Anchors read_anchors(const std::filesystem::path& file) {
  GRAFT_CHECK(model, std::filesystem::exists(file),
              "{}: there is no such file. `graft retain fisher --out {}` makes it from the source model and its data.",
              file.string(), file.string());
  const auto read = io::read_safetensors(file);
  Anchors anchors;
  for (const auto& [name, view] : read.tensors) {
    if (name.starts_with("anchor.")) anchors.of[name.substr(7)].at = models::to_tensor(name, view);
    else if (name.starts_with("fisher.")) anchors.of[name.substr(7)].fisher = models::to_tensor(name, view);
  }
  GRAFT_CHECK(model, !anchors.of.empty(), "{}: holds no anchors; give the file that `graft retain fisher` wrote.",
              file.string());
  for (const auto& [key, anchor] : anchors.of)
    GRAFT_CHECK(model, anchor.at.defined() && (!anchor.fisher.defined() || anchor.fisher.sizes() == anchor.at.sizes()),
                "{}: {} has no anchor that fits its Fisher. The file is damaged; make it again with `graft retain "
                "fisher`.",
                file.string(), key);
  if (const auto found = read.metadata.find("domains"); found != read.metadata.end())
    if (const auto domains = Json::parse(found->second, nullptr, false); domains.is_array()) anchors.domains = domains;
  return anchors;
}

}  // namespace graft::retain
