SUMMARY = "The initramfs of the box: busybox and board/common/init"
DESCRIPTION = "What U-Boot loads from a slot beside its kernel: it knows the partitions and loads no modules."
HOMEPAGE = "https://refuge.example"
LICENSE = "Apache-2.0"

PACKAGE_INSTALL = "refuge-init base-passwd busybox"
NO_RECOMMENDATIONS = "1"
PACKAGE_EXCLUDE = "kernel-image-*"
IMAGE_FEATURES = ""
IMAGE_NAME_SUFFIX = ""
# Not the image's: it is loaded by U-Boot, and there is nothing to partition.
IMAGE_FSTYPES = "cpio.zst"

inherit core-image

COMPATIBLE_HOST = "(arm|aarch64).*-linux.*"
IMAGE_ROOTFS_SIZE = "8192"
IMAGE_ROOTFS_EXTRA_SPACE = "0"
