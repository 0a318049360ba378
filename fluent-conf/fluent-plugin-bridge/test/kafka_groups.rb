# frozen_string_literal: true

require_relative 'kafka'

# What the tests of the input need of Kafka beside {Kafka}'s topics: messages to read, and what groups have committed.
module Kafka
  # @return [String] the name
  def self.create(name, partitions: 1)
    admin { |client| client.create_topic(name, partitions, 1).wait(max_wait_timeout_ms: 15_000) }
    name
  end

  # @param messages [Array<Hash>] arguments of Rdkafka::Producer#produce; into partition 0 unless they say otherwise
  # @param options [Hash{Symbol => Object}] settings of librdkafka
  def self.write(topic, messages, options = {})
    producer = Rdkafka::Config.new('bootstrap.servers': brokers, 'linger.ms': 20, **options).producer
    messages.map { |message| producer.produce(topic: topic, partition: 0, **message) }
            .each { |handle| handle.wait(max_wait_timeout_ms: 15_000) }
  ensure
    producer&.close
  end

  # @return [Hash{Integer => Integer}] offsets by partition, for those that have one
  def self.committed(group, topic)
    consumer = Rdkafka::Config.new('bootstrap.servers': brokers, 'group.id': group, 'isolation.level': 'read_committed').consumer
    list = Rdkafka::Consumer::TopicPartitionList.new
    list.add_topic(topic, partitions_of(consumer, topic))
    consumer.committed(list, 15_000).to_h.fetch(topic).to_h { |one| [one.partition, one.offset] }.compact
  ensure
    consumer&.close
  end

  def self.commit(group, topic, offsets)
    list = Rdkafka::Consumer::TopicPartitionList.new
    list.add_topic_and_partitions_with_offsets(topic, offsets)
    consumer = Rdkafka::Config.new('bootstrap.servers': brokers, 'group.id': group).consumer
    consumer.commit(list)
  ensure
    consumer&.close
  end

  # Deletes the messages before an offset of each partition, as retention does.
  def self.delete(topic, offsets)
    partitions = offsets.map { |partition, offset| { partition: partition, offset: offset } }
    admin { |client| client.delete_records(topic => partitions).wait(max_wait_timeout_ms: 15_000) }
  end

  def self.admin
    client = Rdkafka::Config.new('bootstrap.servers': brokers).admin
    yield client
  ensure
    client&.close
  end
  private_class_method :admin
end
