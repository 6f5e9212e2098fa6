// Labelled images: a folder for each class, or tables with the columns file_name and label; in folders or archives.
#pragma once

#include <memory>

#include "graft/data/dataset.h"
#include "graft/data/images/image_files.h"

namespace graft::data {

struct ImageDataset {
  Dataset dataset;  // Examples::texts are the images' names for ImageFiles
  std::shared_ptr<ImageFiles> files;
};

/// As read_dataset(). data.path is a folder or archive with train, validation and test in it, each with a folder for each
/// class (or a metadata.csv, .jsonl of file_name and label); or one with the classes' folders, which is split; or a table,
/// or a folder of tables, whose file_name is relative to the table. The same for data.train, data.validation, data.test.
/// Throws Kind::data besides: an image outside the classes' folders, a class that training does not have, a damaged archive.
ImageDataset read_image_dataset(const DataOptions& options, uint64_t seed,
                                const std::vector<std::string>& label_names = {});

/// Images to be judged: a file, or all images of a folder or archive. Without labels.
ImageDataset list_images(const std::vector<std::string>& places);

}  // namespace graft::data
