#include "graft/data/images/image_dataset.h"

#include <algorithm>
#include <set>

#include "graft/core/error.h"
#include "graft/data/dataset_files.h"
#include "graft/data/intake.h"

namespace graft::data {
namespace {

const std::vector<std::string> kValidation = {"validation", "val", "valid", "dev"};

/// The folder in which the data begins: archives often have one folder around everything.
fs::path inner_root(const fs::path& root, const std::vector<std::string>& files) {
  std::set<std::string> tops;
  size_t depth = SIZE_MAX;
  for (const auto& file : files) {
    tops.insert(fs::path(file).begin()->string());
    depth = std::min<size_t>(depth, std::count(file.begin(), file.end(), '/'));
  }
  return tops.size() == 1 && depth >= 2 && *tops.begin() != "train" ? root / *tops.begin() : root;
}

/// The tables of the splits right in a folder; of a file system's, find_files() says more about what is wrong.
DatasetFiles tables_of(ImageFiles& images, const fs::path& folder) {
  DatasetFiles found;
  for (const auto& table : images.tables(folder)) {
    const auto stem = table.stem().string();
    if (stem == "train") found.train = table;
    if (stem == "test") found.test = table;
    if (std::find(kValidation.begin(), kValidation.end(), stem) != kValidation.end()) found.validation = table;
  }
  return found;
}

std::optional<fs::path> metadata_of(ImageFiles& images, const fs::path& folder) {
  for (const auto& table : images.tables(folder))
    if (table.filename() == "metadata.csv" || table.filename() == "metadata.jsonl") return table;
  return {};
}

DatasetFiles splits_of(ImageFiles& images, const DataOptions& options, bool needs_train) {
  if (options.path.empty() || !images.is_folder(options.path)) return find_files(options, needs_train);
  if (fs::is_directory(options.path)) {
    const auto tables = tables_of(images, options.path);
    if (tables.train || tables.validation || tables.test) return find_files(options, needs_train);
  }
  const auto files = images.list(options.path);
  GRAFT_CHECK(data, !files.empty(), "{}: holds no image (.jpg, .png, .webp, .tif, .bmp, .gif); check data.path",
              options.path);
  const auto root = inner_root(options.path, files);
  for (const auto& folder : {fs::path(options.path), root})
    if (const auto tables = tables_of(images, folder);
        tables.train || (!needs_train && (tables.validation || tables.test)))
      return tables;
  const auto split = [&](const std::vector<std::string>& names) {
    std::optional<fs::path> found;
    for (const auto& name : names)
      if (!found && images.is_folder(root / name)) found = root / name;
    return found;
  };
  const DatasetFiles found{split({"train"}), split(kValidation), split({"test"})};
  if (found.train || (!needs_train && (found.validation || found.test))) return found;
  // No splits: the folders are classes. What is judged with a trained model is not split.
  return needs_train ? DatasetFiles{.train = root} : DatasetFiles{.test = root};
}

/// The folders right below `place` are the classes.
Intake read_folders(ImageFiles& images, const fs::path& place, const DataOptions& options, LabelNames& labels) {
  GRAFT_CHECK(usage, options.task == "classification" && options.split_by.empty(),
              "{}: folders name one class for each image; the task {}{} needs a table (CSV, JSONL) with the columns {} "
              "and {}",
              place.string(), options.task, options.split_by.empty() ? "" : " with data.split_by", options.image,
              options.label);
  Intake intake;
  const auto files = images.list(place);
  GRAFT_CHECK(data, !files.empty(), "{}: holds no image (.jpg, .png, .webp, .tif, .bmp, .gif)", place.string());
  for (const auto& file : files) {
    const auto slash = file.find('/');
    GRAFT_CHECK(data, slash != file.npos,
                "{}: the image `{}` lies in no class's folder; put it into one, or give a table with the columns {} "
                "and {}",
                place.string(), file, options.image, options.label);
    const auto name = file.substr(0, slash);
    const auto index = labels.index(name, place, intake.examples.size() + 1);
    GRAFT_CHECK(data, index >= 0, "{}: {}", (place / name).string(), labels.unknown_sentence(name));
    intake.examples.texts.push_back((place / file).string());
    intake.examples.labels.push_back(index);
  }
  return intake;
}

/// Rows of a table; a file name is relative to the table.
Intake read_rows(ImageFiles& images, const fs::path& table, DataOptions options, LabelNames& labels, GroupNames& groups,
                 SkippedRows& skipped) {
  options.text = options.image;
  images.open(table);
  auto intake = read_examples(table, options, labels, groups, skipped, images.table(table));
  Ragged<char> names;
  for (int64_t i = 0; i < intake.examples.size(); ++i) {
    const auto name = (table.parent_path() / std::string(intake.examples.texts.text(i))).lexically_normal();
    images.open(name);
    names.push_back(name.string());
  }
  intake.examples.texts = std::move(names);
  return intake;
}

}  // namespace

ImageDataset read_image_dataset(const DataOptions& options, uint64_t seed,
                                const std::vector<std::string>& label_names) {
  ImageDataset result{.files = std::make_shared<ImageFiles>()};
  auto& images = *result.files;
  GRAFT_CHECK(usage, options.task != "tokens", "data.task: tokens are words of a text; images have none");
  GRAFT_CHECK(usage, options.pair.empty(), "data.pair: images have no second text; remove it");
  const Reading reading{
      [&](const DataOptions& o, bool needs_train) { return splits_of(images, o, needs_train); },
      [&](const fs::path& place, const DataOptions& o, LabelNames& labels, GroupNames& groups, SkippedRows& skipped) {
        if (!images.is_folder(place)) return read_rows(images, place, o, labels, groups, skipped);
        const auto table = metadata_of(images, place);
        return table ? read_rows(images, *table, o, labels, groups, skipped) : read_folders(images, place, o, labels);
      }};
  result.dataset = read_dataset(options, seed, label_names, reading);
  result.dataset.of_images = true;
  return result;
}

ImageDataset list_images(const std::vector<std::string>& places) {
  ImageDataset result{.files = std::make_shared<ImageFiles>()};
  for (const auto& place : places) {
    if (!result.files->is_folder(place)) {
      result.files->open(place);
      result.dataset.test.texts.push_back(place);
      continue;
    }
    const auto files = result.files->list(place);
    GRAFT_CHECK(data, !files.empty(), "{}: holds no image (.jpg, .png, .webp, .tif, .bmp, .gif)", place);
    for (const auto& file : files) result.dataset.test.texts.push_back((fs::path(place) / file).string());
  }
  result.dataset.of_images = true;
  return result;
}

}  // namespace graft::data
