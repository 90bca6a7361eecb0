################################################################################
#
# refuge
#
################################################################################

# The checkout that this tree lies in.
REFUGE_VERSION = 0.1.0
REFUGE_SITE = $(realpath $(BR2_EXTERNAL_REFUGE_PATH)/../..)
REFUGE_SITE_METHOD = local
REFUGE_LICENSE = Apache-2.0
REFUGE_LICENSE_FILES = LICENSE
REFUGE_OVERRIDE_SRCDIR_RSYNC_EXCLUSIONS = \
	--exclude /.git --exclude /boxes --exclude /data --exclude /target

# As Cargo.toml has it: Buildroot sets its own for all packages.
REFUGE_CARGO_ENV = \
	CARGO_PROFILE_RELEASE_CODEGEN_UNITS="1" \
	CARGO_PROFILE_RELEASE_LTO="fat" \
	CARGO_PROFILE_RELEASE_OPT_LEVEL="s"

# BLAKE3's code for NEON is chosen at compile time on 32-bit ARM.
ifeq ($(BR2_arm)$(BR2_ARM_CPU_HAS_NEON),yy)
REFUGE_CARGO_BUILD_OPTS = --features neon
REFUGE_CARGO_INSTALL_OPTS = --features neon
endif

# A local site has no download step that would fetch the crates along.
define REFUGE_FETCH_CRATES
	cd $(@D) && \
	$(TARGET_MAKE_ENV) $(PKG_CARGO_ENV) \
		cargo fetch --locked --target $(RUSTC_TARGET_NAME)
endef
REFUGE_POST_CONFIGURE_HOOKS += REFUGE_FETCH_CRATES

define REFUGE_INSTALL_INIT_SYSTEMD
	$(INSTALL) -d $(TARGET_DIR)/usr/lib/systemd/system
	$(INSTALL) -m 0644 $(@D)/systemd/*.service $(@D)/systemd/*.socket \
		$(TARGET_DIR)/usr/lib/systemd/system
endef

define REFUGE_USERS
	refuge 199 refuge 199 * /data/refuge /usr/sbin/nologin - Refuge
endef

$(eval $(cargo-package))
