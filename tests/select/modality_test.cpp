// Modality and domain from data made for the purpose: what is seen must be said, and nothing is guessed from little.
#include "graft/select/modality.h"

#include <gtest/gtest.h>

#include <array>
#include <cstdlib>
#include <map>

#include "graft/core/error.h"
#include "tests/fixtures.h"

namespace graft::select {
namespace {

namespace fs = std::filesystem;
using tests::write_text;

bool has(const std::vector<std::string>& reasons, const std::string& part) {
  for (const auto& reason : reasons)
    if (reason.find(part) != std::string::npos) return true;
  return false;
}

std::string row(const std::string& text, const std::string& label) {
  return Json{{"text", text}, {"label", label}}.dump() + "\n";
}

std::string repeated(const std::vector<std::string>& texts, int times) {
  std::string all;
  for (int i = 0; i < times; ++i)
    for (size_t k = 0; k < texts.size(); ++k) all += row(texts[k] + " " + std::to_string(i), k % 2 ? "a" : "b");
  return all;
}

/// A little-endian TIFF of one directory: tag -> (type, value).
std::string tiff(const std::vector<std::array<uint32_t, 3>>& tags) {
  std::string bytes("II*\0\x08\0\0\0", 8);
  const auto put = [&](uint32_t value, int size) {
    for (int i = 0; i < size; ++i) bytes += static_cast<char>(value >> (8 * i) & 0xff);
  };
  put(static_cast<uint32_t>(tags.size()), 2);
  for (const auto& [tag, type, value] : tags) {
    put(tag, 2);
    put(type, 2);
    put(1, 4);
    put(value, 4);
  }
  put(0, 4);
  return bytes;
}

TEST(Modality, TextsOfFourDomainsAndOfNone) {
  const tests::Scratch scratch;
  const std::map<std::string, std::vector<std::string>> domains{
      {"medical",
       {"The patient presents with acute dyspnea; chest radiograph shows bilateral pleural effusion.",
        "67-year-old with a history of hypertension and diabetes was discharged on 20 mg of the medication."}},
      {"scientific",
       {"In this paper we propose an algorithm and evaluate it on three datasets; our results are statistically sound.",
        "Gene expression of the kinase was measured in mice; binding of the inhibitor was significantly lower in "
        "vitro."}},
      {"legal",
       {"The defendant shall not be liable under this agreement, subject to the provisions of clause 4.",
        "Plaintiff appeals the judgment of the court pursuant to the statute; damages were set forth herein."}},
      {"code",
       {"def load(self, path):\n    return self.read(path) if path != None else {}",
        "int main(int argc, char** argv) { printf(\"hello\\n\"); return 0; } // entry"}},
      {"",
       {"What a lovely film, the actors were great and the ending made me cry.",
        "I would not see this movie again; the music was too loud and the story thin."}}};
  for (const auto& [domain, texts] : domains) {
    write_text(scratch / "train.jsonl", repeated(texts, 20));
    const auto finding = find_modality(scratch / "train.jsonl");
    EXPECT_EQ(finding.modality, "text");
    EXPECT_EQ(finding.domain, domain) << finding.json().dump(1);
    EXPECT_TRUE(has(finding.reasons, "column `text`"));
    EXPECT_TRUE(has(finding.reasons, domain.empty() ? "show no domain clearly" : "terms of the " + domain)) << domain;
  }
  // A few medical texts among others do not make the data medical.
  write_text(scratch / "train.jsonl", repeated(domains.at(""), 20) + repeated(domains.at("medical"), 2));
  EXPECT_EQ(find_modality(scratch / "train.jsonl").domain, "");
}

TEST(Modality, TablesAreTextImagesOrBoth) {
  const tests::Scratch scratch;
  write_text(scratch / "a.csv", "image,label\nx/1.jpg,cat\nx/2.jpg,dog\n");
  EXPECT_EQ(find_modality(scratch / "a.csv").modality, "image");
  write_text(scratch / "b.csv",
             "image,caption\nx/1.jpg,a cat that sleeps in the sun\nx/2.jpg,a dog that runs along the sea\n");
  EXPECT_EQ(find_modality(scratch / "b.csv").modality, "multimodal");
  write_text(scratch / "c.tsv", "sentence\tlabel\nthis is a whole sentence\t1\nand this is another one\t0\n");
  const auto finding = find_modality(scratch / "c.tsv");
  EXPECT_EQ(finding.modality, "text");
  EXPECT_TRUE(has(finding.reasons, "column `sentence`"));
}

TEST(Modality, ConversationsAreText) {
  const tests::Scratch scratch;
  std::string rows;
  for (int i = 0; i < 30; ++i)
    rows += R"({"messages": [{"role": "user", "content": "What is the diagnosis of the patient?"},)"
            R"( {"role": "assistant", "content": "Acute pneumonia of the left lung, with pleural effusion."}]})"
            "\n";
  write_text(scratch / "train.jsonl", rows);
  const auto finding = find_modality(scratch / "train.jsonl");
  EXPECT_EQ(finding.modality, "text");
  EXPECT_EQ(finding.domain, "medical");
  EXPECT_TRUE(has(finding.reasons, "column `messages`"));
}

TEST(Modality, FoldersOfImagesByTheirHeaders) {
  const tests::Scratch scratch;
  const auto folder = [&](const std::string& name, const std::string& file, const std::string& bytes) {
    for (int i = 0; i < 4; ++i)
      write_text(scratch / (name + "/class" + std::to_string(i % 2) + "/" + std::to_string(i) + file), bytes);
    return find_modality(scratch / name);
  };
  const auto photographs = folder("photographs", ".jpg", "\xff\xd8\xff\xe0 and so on");
  EXPECT_EQ(photographs.modality, "image");
  EXPECT_EQ(photographs.domain, "");
  EXPECT_TRUE(has(photographs.reasons, "give it by --domain"));
  const auto xrays = folder("xrays", ".dcm", std::string(128, '\0') + "DICM rest");
  EXPECT_EQ(xrays.domain, "medical");
  EXPECT_EQ(folder("slides", ".svs", tiff({{256, 4, 90000}, {277, 3, 3}})).domain, "microscopy");
  const auto scenes = folder("scenes", ".tif", tiff({{256, 3, 96}, {257, 3, 64}, {258, 3, 16}, {277, 3, 13}}));
  EXPECT_EQ(scenes.domain, "satellite");
  EXPECT_TRUE(has(scenes.reasons, "13 bands of 16 bits"));
  EXPECT_EQ(folder("placed", ".tif", tiff({{277, 3, 3}, {34735, 3, 1}})).domain, "satellite");
  EXPECT_EQ(folder("plain", ".tif", tiff({{277, 3, 3}})).domain, "");
}

TEST(Modality, ArchivesOfImagesAreLookedInto) {
  const tests::Scratch scratch;
  const auto many_bands = tiff({{256, 4, 64}, {257, 4, 64}, {277, 3, 6}});
  for (int i = 0; i < 12; ++i)
    write_text(scratch / "tiles/train" / (i % 2 ? "water" : "wood") / (std::to_string(i) + ".tif"),
               many_bands + std::string(2000, 'x'));
  write_text(scratch / "tiles/train/metadata.csv", "file_name,label\n");
  write_text(scratch / "tiles/.hidden/0.tif", many_bands);
  const auto long_name = std::string(120, 'n') + ".tif";
  write_text(scratch / "tiles/train/water" / long_name, many_bands);
  const auto packed = [&](const std::string& command) {
    EXPECT_EQ(std::system(("cd " + scratch.path.string() + " && " + command).c_str()), 0) << command;
  };
  packed("python3 -c \"import shutil; [shutil.make_archive('a', f, '.', 'tiles') for f in ('zip', 'tar', 'gztar')]\"");
  packed("tar --format=gnu -cf gnu.tar tiles");
  for (const auto* name : {"a.zip", "a.tar", "a.tar.gz", "gnu.tar"}) {
    const auto found = find_modality(scratch / name);
    EXPECT_EQ(found.modality, "image") << name;
    EXPECT_EQ(found.domain, "satellite") << name;
    EXPECT_TRUE(has(found.reasons, "13 image files") && has(found.reasons, std::string("13 .tif in ") + name)) << name;
    EXPECT_TRUE(has(found.reasons, "6 bands")) << name;
  }
  // In a folder, as splits are given.
  fs::create_directories(scratch / "splits");
  fs::rename(scratch / "a.zip", scratch / "splits/train.zip");
  EXPECT_EQ(find_modality(scratch / "splits").modality, "image");
  for (const auto* name : {"a.tar.gz", "a.tar"}) {
    const auto whole = tests::read_text(scratch / name);
    write_text(scratch / name, whole.substr(0, whole.size() / 3));
    const auto message = tests::message_of([&] { find_modality(scratch / name); });
    EXPECT_NE(message.find("damaged or cut off"), std::string::npos) << message;
  }
}

TEST(Modality, Headers) {
  const tests::Scratch scratch;
  write_text(scratch / "a.tif", tiff({{256, 3, 96}, {257, 3, 64}, {258, 3, 16}, {277, 3, 6}, {322, 3, 16}}));
  const auto scene = read_image_header(scratch / "a.tif");
  EXPECT_EQ(scene.width, 96);
  EXPECT_EQ(scene.height, 64);
  EXPECT_EQ(scene.bands, 6);
  EXPECT_TRUE(scene.tiled && !scene.placed);
  write_text(scratch / "b.png", std::string("\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\x01\0\0\0\0\x80\x10\0\0\0\0", 29));
  const auto gray = read_image_header(scratch / "b.png");
  EXPECT_EQ(gray.width, 256);
  EXPECT_EQ(gray.height, 128);
  EXPECT_EQ(gray.bits, 16);
  EXPECT_EQ(gray.bands, 1);
  // Cut off and made up: nothing is read beyond the end.
  write_text(scratch / "c.tif", std::string("II*\0\xff\xff\xff\x7f", 8));
  EXPECT_EQ(read_image_header(scratch / "c.tif").format, "");
  write_text(scratch / "d.tif", std::string("II*\0\xff\xff\xff\x7f", 8) + std::string(20, 'x'));
  EXPECT_EQ(read_image_header(scratch / "d.tif").bands, 1);
}

TEST(Modality, NeitherTextsNorImages) {
  const tests::Scratch scratch;
  write_text(scratch / "x/model.bin", "?");
  write_text(scratch / "x/archive.zip", "?");
  const auto message = tests::message_of([&] { find_modality(scratch / "x"); });
  EXPECT_NE(message.find("it holds 1 .bin, 1 .zip"), std::string::npos) << message;
  EXPECT_NE(tests::message_of([&] { find_modality(scratch / "missing"); }).find("no such file"), std::string::npos);
}

}  // namespace
}  // namespace graft::select
