// Images in folders, tables and archives become labelled examples.
#include <archive.h>
#include <archive_entry.h>
#include <gtest/gtest.h>

#include "graft/core/error.h"
#include "graft/data/images/image_dataset.h"
#include "tests/fixtures.h"

namespace graft::data {
namespace {

using tests::message_of;
using tests::Scratch;
using tests::write_text;

/// Names and contents as a zip (deflated) or tar archive.
void write_archive(const fs::path& file, const std::vector<std::pair<std::string, std::string>>& entries) {
  archive* a = archive_write_new();
  if (file.extension() == ".zip") archive_write_set_format_zip(a);
  else archive_write_set_format_pax_restricted(a);
  archive_write_open_filename(a, file.c_str());
  for (const auto& [name, content] : entries) {
    archive_entry* entry = archive_entry_new();
    archive_entry_set_pathname(entry, name.c_str());
    archive_entry_set_size(entry, static_cast<la_int64_t>(content.size()));
    archive_entry_set_filetype(entry, AE_IFREG);
    archive_entry_set_perm(entry, 0644);
    archive_write_header(a, entry);
    archive_write_data(a, content.data(), content.size());
    archive_entry_free(entry);
  }
  archive_write_close(a);
  archive_write_free(a);
}

DataOptions at(const fs::path& path) { return {.path = path.string(), .bad_rows = "stop"}; }

std::string content_of(const ImageDataset& d, std::string_view name) {
  std::string content;
  d.files->read(std::string(name), [&](std::string_view bytes) { content = bytes; });
  return content;
}

void write_splits(const fs::path& root) {
  for (const auto* name : {"10", "2", "cat"}) {
    write_text(root / "train" / name / "b.jpg", std::string("train ") + name);
    write_text(root / "train" / name / "deeper" / "a.PNG", "more");
    write_text(root / "val" / name / "c.png", "v");
  }
  write_text(root / "train/cat/.hidden.jpg", "x");
  write_text(root / "train/cat/notes.txt", "x");
}

TEST(ImageDataset, FoldersAreClassesInNaturalOrder) {
  const Scratch scratch;
  write_splits(scratch.path);
  const auto d = read_image_dataset(at(scratch.path), 0);
  EXPECT_EQ(d.dataset.label_names, (std::vector<std::string>{"2", "10", "cat"}));
  EXPECT_EQ(d.dataset.train.size(), 6);
  EXPECT_EQ(d.dataset.validation.size(), 3);
  EXPECT_EQ(d.dataset.test.size(), 0);
  for (int64_t i = 0; i < 6; ++i)
    EXPECT_NE(d.dataset.train.texts.text(i).find("/" + d.dataset.label_names[d.dataset.train.labels[i]] + "/"),
              std::string_view::npos);
  EXPECT_EQ(content_of(d, d.dataset.train.texts.text(0)), "train 10");
}

TEST(ImageDataset, ClassesWithoutSplitsAreSplit) {
  const Scratch scratch;
  for (int i = 0; i < 20; ++i)
    for (const auto* name : {"a", "b"}) write_text(scratch / "all" / name / (std::to_string(i) + ".jpg"), "x");
  const auto d = read_image_dataset(at(scratch / "all"), 1).dataset;
  EXPECT_EQ(d.train.size(), 32);
  EXPECT_EQ(d.validation.size(), 4);
  EXPECT_EQ(d.test.size(), 4);
  // With a trained model's names everything is judged.
  EXPECT_EQ(read_image_dataset(at(scratch / "all"), 1, {"a", "b"}).dataset.test.size(), 40);
}

TEST(ImageDataset, AnAbsentClassIsAWarningAnUnknownOneAnError) {
  const Scratch scratch;
  write_splits(scratch.path);
  fs::remove_all(scratch / "val/cat");
  const auto text = summary_text(summary(read_image_dataset(at(scratch.path), 0).dataset));
  EXPECT_NE(text.find("warning: validation has no example of cat"), std::string::npos) << text;
  write_text(scratch / "val/cta/x.jpg", "x");
  const auto message = message_of([&] { read_image_dataset(at(scratch.path), 0); });
  EXPECT_NE(message.find("val/cta"), std::string::npos) << message;
  EXPECT_NE(message.find("the nearest is `cat`"), std::string::npos) << message;
}

TEST(ImageDataset, AnImageOutsideTheClassesIsAnError) {
  const Scratch scratch;
  write_splits(scratch.path);
  write_text(scratch / "train/stray.jpg", "x");
  const auto message = message_of([&] { read_image_dataset(at(scratch.path), 0); });
  EXPECT_NE(message.find("`stray.jpg` lies in no class's folder"), std::string::npos) << message;
}

TEST(ImageDataset, TablesGiveNamesAndOneOrSeveralLabels) {
  const Scratch scratch;
  write_text(scratch / "pictures/a.jpg", "A");
  write_text(scratch / "train.csv", "file_name,label\npictures/a.jpg,x|y\npictures/b.jpg,\npictures/c.jpg,y\n");
  write_text(scratch / "validation.csv", "file_name,label\npictures/a.jpg,x\n");
  auto options = at(scratch.path);
  options.task = "multilabel";
  const auto d = read_image_dataset(options, 0);
  EXPECT_EQ(d.dataset.label_names, (std::vector<std::string>{"x", "y"}));
  EXPECT_EQ(d.dataset.train.label_sets[0].size(), 2u);
  EXPECT_EQ(d.dataset.train.label_sets[1].size(), 0u);
  EXPECT_EQ(content_of(d, d.dataset.train.texts.text(0)), "A");
  const auto missing = message_of([&] { content_of(d, d.dataset.train.texts.text(1)); });
  EXPECT_NE(missing.find("pictures/b.jpg: there is no such image"), std::string::npos) << missing;
}

TEST(ImageDataset, AMetadataTableInTheSplitsFolder) {
  const Scratch scratch;
  for (const auto* split : {"train", "validation"}) {
    write_text(scratch / split / "a.jpg", "A");
    write_text(scratch / split / "b.jpg", "B");
    write_text(scratch / split / "metadata.jsonl",
               "{\"file_name\": \"a.jpg\", \"label\": 1}\n{\"file_name\": \"b.jpg\", \"label\": 0}\n");
  }
  const auto d = read_image_dataset(at(scratch.path), 0);
  EXPECT_EQ(d.dataset.label_names, (std::vector<std::string>{"0", "1"}));
  EXPECT_EQ(d.dataset.train.labels, (std::vector<int64_t>{1, 0}));
}

TEST(ImageDataset, ArchivesLookLikeFolders) {
  for (const auto* name : {"data.zip", "data.tar"}) {
    const Scratch scratch;
    std::vector<std::pair<std::string, std::string>> entries;
    for (const auto* split : {"train", "test", "val"})
      for (const auto* label : {"2", "10"})
        entries.push_back({fmt::format("data/{}/{}/x.jpg", split, label), std::string(5000, label[0])});
    entries.push_back({"__MACOSX/train/._x.jpg", "x"});
    write_archive(scratch / name, entries);
    const auto d = read_image_dataset(at(scratch / name), 0);
    EXPECT_EQ(d.dataset.label_names, (std::vector<std::string>{"2", "10"})) << name;
    EXPECT_EQ(d.dataset.train.size(), 2);
    EXPECT_EQ(d.dataset.validation.size(), 2);
    EXPECT_EQ(d.dataset.test.size(), 2);
    EXPECT_EQ(content_of(d, d.dataset.train.texts.text(0)), std::string(5000, '1'));
    EXPECT_EQ(std::distance(fs::directory_iterator(scratch.path), fs::directory_iterator()), 1);
  }
}

TEST(ImageDataset, TablesInArchivesNameTheirImages) {
  for (const auto* name : {"data.zip", "data.tar"}) {
    const Scratch scratch;
    // Splits as tables, below the one folder that archives often have.
    write_archive(scratch / name,
                  {{"set/train.csv", "file_name,label\npictures/a.jpg,x|y\npictures/b.jpg,y\n"},
                   {"set/validation.jsonl", "{\"file_name\": \"pictures/b.jpg\", \"label\": [\"x\"]}\n"},
                   {"set/pictures/a.jpg", "A"},
                   {"set/pictures/b.jpg", "B"}});
    auto options = at(scratch / name);
    options.task = "multilabel";
    const auto d = read_image_dataset(options, 0);
    EXPECT_EQ(d.dataset.label_names, (std::vector<std::string>{"x", "y"})) << name;
    EXPECT_EQ(d.dataset.train.label_sets[0].size(), 2u);
    EXPECT_EQ(content_of(d, d.dataset.train.texts.text(1)), "B");
    EXPECT_EQ(content_of(d, d.dataset.validation.texts.text(0)), "B");
    // A table of its own name.
    DataOptions named{.train = (scratch / name / "set/train.csv").string(), .task = "multilabel", .bad_rows = "stop"};
    named.validation = (scratch / name / "set/validation.jsonl").string();
    EXPECT_EQ(read_image_dataset(named, 0).dataset.train.size(), 2);
    named.train = (scratch / name / "set/other.csv").string();
    EXPECT_NE(message_of([&] { read_image_dataset(named, 0); }).find("set/other.csv: there is no such file"),
              std::string::npos);
  }
  // metadata.csv in a split's folder, and a mistake that is named with its row.
  const Scratch scratch;
  write_archive(scratch / "data.zip", {{"train/metadata.csv", "file_name,label\na.jpg,1\nb.jpg,0\nc.jpg\n"},
                                       {"train/a.jpg", "A"},
                                       {"train/b.jpg", "B"},
                                       {"validation/metadata.csv", "file_name,label\na.jpg,0\n"},
                                       {"validation/a.jpg", "D"},
                                       {"test/metadata.csv", "file_name,label\na.jpg,1\n"},
                                       {"test/a.jpg", "C"}});
  const auto message = message_of([&] { read_image_dataset(at(scratch / "data.zip"), 0); });
  EXPECT_NE(message.find("data.zip/train/metadata.csv, row 4"), std::string::npos) << message;
  auto options = at(scratch / "data.zip");
  options.bad_rows = "skip";
  const auto d = read_image_dataset(options, 0, {"0", "1"});
  EXPECT_EQ(content_of(d, d.dataset.test.texts.text(0)), "C");
}

TEST(ImageDataset, AnArchiveThatLeadsOutOrIsCutOffIsAnError) {
  const Scratch scratch;
  for (const auto* entry : {"../x.jpg", "train/../../x.jpg", "/x.jpg"}) {
    write_archive(scratch / "bad.zip", {{"train/a/x.jpg", "x"}, {entry, "x"}});
    const auto message = message_of([&] { read_image_dataset(at(scratch / "bad.zip"), 0); });
    EXPECT_NE(message.find("bad.zip: the entry `" + std::string(entry) + "` leads out"), std::string::npos) << message;
  }
  write_archive(scratch / "cut.tar", {{"train/a/x.jpg", std::string(9000, 'x')}});
  fs::resize_file(scratch / "cut.tar", 4000);
  const auto message = message_of([&] { read_image_dataset(at(scratch / "cut.tar"), 0); });
  EXPECT_NE(message.find("cut.tar: the archive is damaged or cut off"), std::string::npos) << message;
}

TEST(ImageDataset, ImagesToBeJudgedAreListed) {
  const Scratch scratch;
  write_text(scratch / "b.jpg", "B");
  write_text(scratch / "more/10.jpg", "x");
  const auto d = list_images({(scratch / "b.jpg").string(), (scratch / "more").string()});
  ASSERT_EQ(d.dataset.test.size(), 2);
  EXPECT_TRUE(d.dataset.test.texts.text(1).ends_with("more/10.jpg"));
  EXPECT_EQ(content_of(d, d.dataset.test.texts.text(0)), "B");
}

}  // namespace
}  // namespace graft::data
