include $(sort $(wildcard $(BR2_EXTERNAL_REFUGE_PATH)/package/*/*.mk))
